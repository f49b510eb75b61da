"""The arguments of `Encoder.encode`: texts, and options by several names.

sentence-transformers and mteb call an encoder with option names of their own;
`reading_of` takes them as the options of `Encoder.encode`.
"""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infoxlm_jax.errors import InputError, did_you_mean
from infoxlm_jax.model.pooling import Reading

# Other names of an option: this project's commands', sentence-transformers'.
_SAME = {
  "prefix": "prompt",
  "progress": "show_progress",
  "show_progress_bar": "show_progress",
  "normalize_embeddings": "normalize",
}
# Options of other libraries that ask for what `encode` does anyway.
_ONLY = {
  "convert_to_numpy": (True,),
  "convert_to_tensor": (False, None),
  "output_value": ("sentence_embedding",),
  "precision": ("float32",),
}
# mteb names the task with every call; prompts depend on the first two.
_TASK = ("task_metadata", "prompt_type", "hf_split", "hf_subset")


def reading_of(
  default: Reading,
  prompts: Mapping[str, str],
  given: Mapping[str, Any],
  others: Mapping[str, Any],
) -> tuple[Reading, bool]:
  """How texts are to be read, and whether a progress bar is asked for.

  Args:
    default: for what is not given.
    prompts: the encoder's prompts by name, which prompt_name and mteb's tasks
      choose from.
    given: options by the names of `Encoder.encode`; None: not given.
    others: options by other names.

  Raises:
    InputError: an option given twice, a value that `encode` cannot serve, or
      no prompt of that name.
    TypeError: an option of no known name.
  """
  chosen = {name: value for name, value in given.items() if value is not None}
  for name, value in others.items():
    if name in _ONLY:
      if value not in _ONLY[name]:
        raise InputError(
          f"{name} = {value!r}: vectors of texts are float32 numpy arrays;"
          f" leave {name} out and convert the result"
        )
    elif name in _SAME:
      own = _SAME[name]
      if own in chosen and value is not None:
        raise InputError(f"{name} and {own} are the same option: give one")
      chosen |= {} if value is None else {own: value}
    elif name not in _TASK:
      hint = did_you_mean(name, {*given, *_SAME})
      raise TypeError(f"encode() has no option {name!r}{hint}")
  show = bool(chosen.pop("show_progress", False))
  prompt_name = chosen.pop("prompt_name", None)
  if "prompt" in chosen:
    if prompt_name is not None:
      raise InputError("prompt and prompt_name: give one of them")
    chosen["prefix"] = chosen.pop("prompt")
  else:
    prompt = _prompt(prompts, prompt_name, others)
    chosen |= {} if prompt is None else {"prefix": prompt}
  return dataclasses.replace(default, **chosen), show


def _prompt(
  prompts: Mapping[str, str], name: str | None, task: Mapping[str, Any]
) -> str | None:
  """The prompt of a name, or of an mteb task, the most special name first."""
  if name is not None:
    if name not in prompts:
      known = ", ".join(prompts) or "none"
      raise InputError(
        f"prompt_name = {name!r} is not one of the encoder's prompts ({known})"
        f"{did_you_mean(name, prompts)}; give `prompts` to infoxlm_jax.load"
      )
    return prompts[name]
  metadata, kind = task.get("task_metadata"), task.get("prompt_type")
  kind = str(getattr(kind, "value", kind))  # "query", of mteb's enumeration
  names = []
  for part in ("name", "type"):
    if (what := getattr(metadata, part, None)) is not None:
      names += [f"{what}-{kind}", str(what)]
  return next((prompts[n] for n in (*names, kind) if n in prompts), None)


def listed(texts: Any) -> list[str]:
  """Texts as a list.

  Args:
    texts: strings in any iterable that is not one itself, or mteb's batches,
      each {"text": list of strings, ...}.

  Raises:
    InputError: they are one text or something else.
  """
  if isinstance(texts, str | bytes):
    raise InputError("give a list of texts, not one text")
  if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
    raise InputError(f"give a list of texts, not {_called(texts)}")
  return list(checked(texts))


def checked(texts: Iterable[Any]) -> Iterator[str]:
  """The texts one by one, batches as their texts; see `listed`."""
  number = 0
  for item in texts:
    for text in _of_batch(item) if isinstance(item, Mapping) else (item,):
      if not isinstance(text, str):
        raise InputError(
          f"text {number} (the first is 0) is {_called(text)}, not a str: every"
          " text must be one; an empty text is ''"
        )
      number += 1
      yield text


def _of_batch(batch: Mapping[str, Any]) -> Iterable[Any]:
  texts = batch.get("text")
  if not isinstance(texts, list | tuple):
    raise InputError(
      f"a batch has {', '.join(map(str, batch)) or 'nothing'}, where a list of"
      " texts named 'text' is needed"
    )
  return texts


def _called(value: Any) -> str:
  """A value in a few words: None, 3.5 (float), a list."""
  if value is None:
    return "None"
  if isinstance(value, int | float | complex):
    return f"{value!r} ({type(value).__name__})"
  return f"a {type(value).__name__}"


def warn_of_cuts(cut: int, count: int, limit: int) -> None:
  """Logs how many of the texts were cut, if any were."""
  if cut:
    logging.warning(
      "%d of %d texts were longer than %d tokens and were cut",
      cut,
      count,
      limit,
    )
