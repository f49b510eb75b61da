"""The model card: README.md with a head in YAML, as model hubs read it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from infoxlm_jax.checkpoint.exporters.source import Source
from infoxlm_jax.runtime.progress import duration

_CITATION = """\
@inproceedings{chi-etal-2021-infoxlm,
  title = "{I}nfo{XLM}: An Information-Theoretic Framework for Cross-Lingual
    Language Model Pre-Training",
  author = "Chi, Zewen and Dong, Li and Wei, Furu and Yang, Nan and Singhal,
    Saksham and Wang, Wenhui and Song, Xia and Mao, Xian-Ling and Huang, Heyan
    and Zhou, Ming",
  booktitle = "Proceedings of NAACL-HLT 2021",
  pages = "3576--3588",
}"""


@dataclasses.dataclass(frozen=True)
class About:
  """Facts about a model that its author states.

  Attributes:
    name: title of the card.
    languages: codes; empty: those that the run's retrieval was measured on.
    license: such as "mit"; none is stated without it.
    base_model: what the training began from.
  """

  name: str
  languages: Sequence[str] = ()
  license: str | None = None
  base_model: str | None = None


def model_card(
  source: Source,
  about: About,
  *,
  library: str,
  task: str,
  code: str,
  notes: Sequence[str] = (),
) -> str:
  """The text of README.md.

  Args:
    source: what is exported.
    about: what a person says of it.
    library: library_name of the head, such as "transformers".
    task: its pipeline_tag.
    code: how to load it, Python.
    notes: sentences on what was exported.
  """
  retrieval = _shown(source.results)
  languages = list(about.languages) or _languages(retrieval)
  head: dict[str, Any] = {}
  if languages:
    head["language"] = languages
  if about.license:
    head["license"] = about.license
  head["library_name"] = library
  head["pipeline_tag"] = task
  if about.base_model:
    head["base_model"] = about.base_model
  head["tags"] = [source.config.architecture, "cross-lingual", "infoxlm-jax"]
  if library == "sentence-transformers":
    head["tags"].insert(0, library)
  if retrieval:
    head["metrics"] = ["accuracy"]
    head["model-index"] = [_index(about.name, retrieval)]
  parts = [
    "---\n"
    + yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    + "---\n",
    f"# {about.name}\n",
    _what(source),
    *source.notes,
    *notes,
    f"```python\n{code.strip()}\n```\n",
    *_training(source.results),
    *_table(retrieval),
    f"## Citation\n\n```bibtex\n{_CITATION}\n```",
  ]
  return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _what(source: Source) -> str:
  c = source.config
  which = "" if source.encoder == "query" else ", the key encoder of a run"
  return (
    f"A cross-lingual encoder ({c.architecture}{which}): {c.num_layers} layers"
    f" x {c.hidden_size}, {c.num_heads} heads, {c.vocab_size:,} embeddings, up"
    f" to {c.max_positions} tokens. Exported by infoxlm_jax."
  )


def _shown(results: Mapping[str, Any]) -> Mapping[str, Any]:
  """Retrieval on test, else on dev, with its split; {} where there is none."""
  retrieval = results.get("retrieval", {})
  for split in ("test", "dev"):
    if split in retrieval:
      return {"split": split} | retrieval[split]
  return {}


def _directions(retrieval: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  return {
    name: value
    for name, value in retrieval.items()
    if isinstance(value, Mapping) and "by_language" in value
  }


def _languages(retrieval: Mapping[str, Any]) -> list[str]:
  languages = set()
  for name, value in _directions(retrieval).items():
    languages |= set(value["by_language"])
    languages |= set(name.split("_to_")) - {"xx"}
  return sorted(languages)


def _index(name: str, retrieval: Mapping[str, Any]) -> dict[str, Any]:
  split = retrieval["split"]
  return {
    "name": name,
    "results": [
      {
        "task": {"type": "sentence-similarity", "name": "Sentence retrieval"},
        "dataset": {
          "type": "multiway",
          "name": f"held-out translations ({split})",
          "split": split,
        },
        "metrics": [
          {
            "type": "accuracy",
            "name": direction.replace("_", " "),
            "value": round(value["mean"], 4),
          }
          for direction, value in _directions(retrieval).items()
        ],
      }
    ],
  }


def _training(results: Mapping[str, Any]) -> list[str]:
  facts = [
    (
      words,
      f"{results[key]:,}" if isinstance(results[key], int) else results[key],
    )
    for key, words in (
      ("init_from", "started from"),
      ("steps", "updates"),
      ("tokens", "tokens seen"),
      ("parameters", "parameters"),
      ("seed", "seed"),
      ("device", "device"),
      ("data_hash", "data (hash)"),
    )
    if results.get(key) is not None
  ]
  if "seconds" in results:
    facts.append(("time", duration(results["seconds"])))
  if not facts:
    return []
  rows = "\n".join(f"| {words} | {value} |" for words, value in facts)
  return [f"## Training\n\n| | |\n|---|---|\n{rows}"]


def _table(retrieval: Mapping[str, Any]) -> list[str]:
  directions = _directions(retrieval)
  if not directions:
    return []
  languages = sorted(
    set().union(*(d["by_language"] for d in directions.values()))
  )
  lines = [
    "| % | mean | " + " | ".join(languages) + " |",
    "|---" * (2 + len(languages)) + "|",
  ]
  for name, value in directions.items():
    cells = [value["mean"], *(value["by_language"][x] for x in languages)]
    shown = " | ".join(f"{100 * cell:.1f}" for cell in cells)
    lines.append(f"| {name.replace('_', ' ')} | {shown} |")
  return [
    f"## Retrieval on {retrieval['split']}\n\nHow many held-out sentences find"
    f" their translation (cosine; layer {retrieval['layer']},"
    f" {retrieval['pooling']} pooling):\n\n" + "\n".join(lines)
  ]
