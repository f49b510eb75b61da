"""Run by test_seqio_tasks.py in a process of its own: reads tasks, tells JSON.

python tasks_in_a_process.py CORPORA    writes CORPORA/../told.json
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

from infoxlm_jax.data.corpora import seqio_reader, seqio_tasks, sources
from infoxlm_jax.data.corpora.unpacking import bytes_consumed
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError

FOLDER = Path(sys.argv[1])
FAMILIES = ("text", "tsv", "moses", "tmx", "fairseq", "paper", "tfds")
MODULES = [f"tasks.{family}" for family in FAMILIES]
TOLD: dict = {"examples": {}, "kinds": {}, "errors": {}, "mocked": {}}


def read(name: str, kind: str, split: str = "train") -> list[dict]:
  return list(sources.SeqioTask(name, MODULES, kind).examples(split))


def keep(name: str, kind: str) -> list[dict]:
  found = read(name, kind)
  TOLD["kinds"][name] = kind
  TOLD["examples"][name] = [
    {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in e.items()}
    for e in found
  ]
  return found


def error(name: str, function) -> None:
  try:
    function()
  except InputError as raised:
    TOLD["errors"][name] = str(raised)


def files() -> None:
  for name in ("text_lines", "text_jsonl", "fairseq_mlm"):
    found = keep(name, "text")
  TOLD["types"] = sorted({str(e["ids"].dtype) for e in found})
  for name in ("tsv_pairs", "moses_pairs", "tmx_pairs", "paper_en_ar"):
    keep(name, "pairs")
  for name in ("fairseq_tlm", "fairseq_xlco"):
    keep(name, "pairs")
  import seqio

  TOLD["paper_languages"] = len(seqio.MixtureRegistry.get("paper_pairs").tasks)
  seqio.MixtureRegistry.add(
    "two_pairs", ["paper_en_hi", "paper_en_ar"], default_rate=1.0
  )
  keep("two_pairs", "pairs")
  both = read("paper_en_hi, paper_en_ar", "pairs")
  TOLD["several"] = [example["language_b"] for example in both]
  error("paper_pairs", lambda: read("paper_pairs", "pairs"))
  error("unknown", lambda: read("tsv_pair", "pairs"))
  error("split", lambda: read("tsv_pairs", "pairs", "dev"))
  task = sources.SeqioTask("tsv_pairs", MODULES, "pairs")
  before = task.fingerprint("train")
  os.utime(FOLDER / "tsv" / "en-fr.tsv", ns=(0, 0))
  TOLD["fingerprints"] = [before, task.fingerprint("train")]


def bad_files() -> None:
  bad = FOLDER.parent / "bad"
  bad.mkdir()
  (bad / "de.txt").write_bytes(b"fine\n" * 2499 + b"\xff\n")
  seqio_tasks.add("bad_utf8", sources.TextFiles(bad / "de.txt"))
  error("bad_utf8", lambda: read("bad_utf8", "text"))
  data = FOLDER / "fairseq" / "mlm" / "train.0.bin"
  ids = np.fromfile(data, "<i4")
  ids[1] = 999_999
  ids.tofile(data)
  tokenizer = load_tokenizer("tasks/data/verses.spm.model")
  task = sources.SeqioTask("fairseq_mlm", MODULES, "text")
  error("vocabulary", lambda: task.check_tokenizer(tokenizer))
  ids[1] = 5
  ids.tofile(data)


def local_builder() -> None:
  import tensorflow_datasets as tfds

  from tasks.tfds import add_pairs, add_text

  languages = ["en", "de", "tr"]

  class TinySet(tfds.core.GeneratorBasedBuilder):
    """Three examples of each kind of feature."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {
        "body": tfds.features.Text(),
        "pair": tfds.features.Text(),
        "ziel": tfds.features.Text(),
        "talks": tfds.features.TranslationVariableLanguages(
          languages=languages
        ),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for n in range(3):
        talks = {"de": f"rede {n}", "en": f"talk {n}", "tr": f"söz {n}"}
        if n == 1:
          del talks["tr"]
        yield (
          n,
          {
            "body": f"text {n}\n",
            "pair": f"source {n}",
            "ziel": f"ziel {n}",
            "talks": talks,
          },
        )

  class LateSet(TinySet):
    """A set that is built when it is first asked for."""

  class LostSet(TinySet):
    """A set that cannot be had."""

    def _split_generators(self, dl_manager):
      raise OSError("no such host")

  place = str(FOLDER.parent / "tfds")
  add_text("late_text", "late_set:1.0.0", "body", "sw", data_dir=place)
  keep("late_text", "text")
  add_text("lost_text", "lost_set:1.0.0", "body", "sw", data_dir=place)
  error("lost", lambda: read("lost_text", "text"))
  add_text("typo_text", "tyni_set:1.0.0", "body", "sw", data_dir=place)
  error("typo", lambda: read("typo_text", "text"))
  TinySet(data_dir=place).download_and_prepare()
  name = "tiny_set:1.0.0"
  add_text("tiny_text", name, "body", "sw", data_dir=place)
  add_pairs("tiny_pairs", name, ("en", "de"), ("pair", "ziel"), data_dir=place)
  add_pairs(
    "tiny_ted", name, ("en", "tr"), translations="talks", data_dir=place
  )
  keep("tiny_text", "text")
  keep("tiny_pairs", "pairs")
  keep("tiny_ted", "pairs")
  task = sources.SeqioTask("tiny_text", MODULES, "text")
  TOLD["tfds_splits"] = list(task.splits())
  size, before = task.size("train"), bytes_consumed()
  read("tiny_text", "text")
  TOLD["tfds_consumed"] = [size, bytes_consumed() - before]
  TOLD["tfds_fingerprint"] = task.fingerprint("train")


def mocked() -> None:
  import seqio
  import tensorflow_datasets as tfds

  from infoxlm_jax.data.corpora.seqio_tasks import FEATURES

  with tfds.testing.mock_data(num_examples=3):
    for name in (
      "tfds_wikipedia_sw",
      "tfds_para_crawl_en_el",
      "tfds_wmt14_hi_en",
      "tfds_wmt19_zh_en",
      "tfds_opus_koran_de_en",
      "tfds_flores_ne_en",
    ):
      kind = "text" if "wikipedia" in name else "pairs"
      task = seqio.TaskRegistry.get(name)
      dataset = task.source.get_dataset("train", shuffle=False)
      for step in task.preprocessors:
        dataset = step(dataset)
      TOLD["mocked"][name] = [
        (
          [e[n].decode() for n in FEATURES[kind] if "text" in n],
          [e[n].decode() for n in FEATURES[kind] if "language" in n],
        )
        for e in dataset.as_numpy_iterator()
      ]
  missing = []
  for name in sorted(seqio.TaskRegistry.names()):
    if name.startswith("tfds_"):
      wanted = seqio.TaskRegistry.get(name).source.tfds_dataset.name
      try:
        tfds.builder(wanted, data_dir=str(FOLDER.parent / "tfds"))
      except Exception as raised:
        missing.append((name, repr(raised)[:200]))
  TOLD["missing_builders"] = missing


if __name__ == "__main__":
  seqio_reader.import_tasks(MODULES)
  files()
  bad_files()
  local_builder()
  mocked()
  (FOLDER.parent / "told.json").write_text(json.dumps(TOLD))
