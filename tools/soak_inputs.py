"""Damaged and hostile inputs of soak.py, for every reader, in one process."""

import functools
import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import soak_runs as runs
from soak_outcomes import DETECTED, HARMLESS, HUNG, TRACEBACK, Outcome

_SECONDS = 20.0  # that a reader may take for an input of a few kilobytes
_LINES = "one line\nanother line\n\nAnother document.\n"
_HOSTILE = (
  b"\x00", b"\xff\xfe", b"\xf0\x9f", b"\xed\xa0\x80", b"\r", b"\n\n\n", b"\t\t",
  b"[" * 3000, b'{"a":' * 3000, b"<a>" * 3000, b"9" * 5000, b"-1", b"1e999",
  b"NaN", b"null", b"true", b'""', b"{}", b"[]", b"../../../etc/passwd",
  b"/dev/zero", b"%s%n", b"a" * 70000, b"\xff" * 8, b"\x7f\xff\xff\xff",
  b"\x00" * 4096, b"&lol;", b'<!DOCTYPE a [<!ENTITY b SYSTEM "/etc/passwd">]>',
  b"4294967296", b"1180591620717411303424", "İ\u2028\u202e".encode(),
)  # fmt: skip
Reader = Callable[[Path], Any]


def samples(reference: Path) -> dict[str, tuple[dict[str, bytes], Reader]]:
  """Of each format: the files of a good input, and its reader.

  Args:
    reference: the work folder of the reference run.
  """
  from infoxlm_jax import gin_utils
  from infoxlm_jax.checkpoint import examine, metadata
  from infoxlm_jax.checkpoint.importers.load import load_weights
  from infoxlm_jax.data import prepared_files
  from infoxlm_jax.data.corpora import sources
  from infoxlm_jax.data.corpora.documents import Documents
  from infoxlm_jax.data.records import Store
  from infoxlm_jax.data.tokenizers.base import load_tokenizer
  from infoxlm_jax.runtime import metrics

  def examples(corpus: Callable[[str], Any]) -> Reader:
    return lambda folder: all(
      True for _ in corpus(str(folder)).examples("train")
    )

  def packed_text(ending: str, folder: str) -> Any:
    return sources.TextFiles(f"{folder}/en.txt{ending}", "en")

  def tokenize(folder: Path) -> None:
    load_tokenizer(folder).encode("In the beginning")

  def data(folder: Path) -> None:
    prepared_files.verify(folder)
    store = Store(folder / "train")
    assert store.manifest_sha256

  ids = np.array([0, 5, 6, 2, 0, 7, 2], "<i4")
  index = b"MMIDIDX\0\0" + struct.pack("<QBQ", 1, 4, 2)
  index += (
    np.array([4, 3], "<i4").tobytes() + np.array([0, 16], "<i8").tobytes()
  )
  verses = (reference / runs.TEXTS / "en-de.tsv").read_bytes()[:2000]
  packed = {
    f"text{ending}": (
      {f"en.txt{ending}": pack(_LINES.encode() * 20)},
      examples(functools.partial(packed_text, ending)),
    )
    for ending, pack in _packers().items()
  }
  return packed | {
    "text": (
      {"en.txt": _LINES.encode()},
      examples(lambda f: sources.TextFiles(f"{f}/en.txt", "en", "lines")),
    ),
    "documents": (
      {"en.txt": _LINES.encode()},
      examples(lambda f: Documents(f"{f}/en.txt", "en")),
    ),
    "jsonl": (
      {"a.jsonl": b'{"text": "a", "language": "en"}\n{"text": "b"}\n'},
      examples(lambda f: sources.TextFiles(f"{f}/a.jsonl", "en", "jsonl")),
    ),
    "tsv": (
      {"en-de.tsv": verses},
      examples(lambda f: sources.Tsv(f"{f}/en-de.tsv")),
    ),
    "moses": (
      {"a.de-en.de": b"eins\nzwei\n", "a.de-en.en": b"one\ntwo\n"},
      examples(lambda f: sources.Moses(f"{f}/a.de-en.*")),
    ),
    "tmx": (
      {"a.tmx": _TMX},
      examples(lambda f: sources.Tmx(f"{f}/a.tmx", ("en", "de"))),
    ),
    "fairseq": (
      {"train.0.bin": ids.tobytes(), "train.0.idx": index},
      examples(lambda f: sources.FairseqBinary(f)),
    ),
    "tokenizer.json": ({"tokenizer.json": _tokenizer_json()}, tokenize),
    "vocab.txt": (
      {"vocab.txt": b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nin\n##the\n"},
      tokenize,
    ),
    "sentencepiece": (
      _files(reference / runs.DATA, "tokenizer.model"),
      tokenize,
    ),
    "prepared data": (_files(reference / runs.DATA, "**/*"), data),
    "weights": (
      _files(reference / "weights", "**/*"),
      lambda folder: load_weights(folder),
    ),
    "small files of a checkpoint": (
      {
        f"files/{name}": content
        for name, content in _files(
          sorted((reference / runs.PART / "checkpoints").iterdir())[-1]
          / "files",
          "*",
        ).items()
      },
      lambda folder: metadata.read_model(
        metadata.read_step_files(folder), folder
      ),
    ),
    "metrics.jsonl": (
      _files(reference / "whole", "metrics.jsonl"),
      metrics.read_metrics,
    ),
    "metrics of a checkpoint": (
      {"metrics/metrics": b'{"best": 0.5}'},
      examine.metrics,
    ),
    "gin": (
      {"a.gin": _GIN},
      lambda folder: gin_utils.load([str(folder / "a.gin")], []),
    ),
  }


def mutated(content: bytes, random_: random.Random) -> bytes:
  """Content with one to three kinds of damage."""
  for _ in range(random_.randint(1, 3)):
    place = random_.randrange(len(content) + 1)
    end = min(len(content), place + random_.choice((1, 2, 8, 64, 1000)))
    kind = random_.randrange(6)
    if kind == 0 and place < len(content):
      bit = bytes([content[place] ^ 1 << random_.randrange(8)])
      content = content[:place] + bit + content[place + 1 :]
    elif kind == 1:
      content = content[:place]
    elif kind == 2:
      content = content[:place] + random_.choice(_HOSTILE) + content[end:]
    elif kind == 3:
      content = content[:place] + random_.choice(_HOSTILE) + content[place:]
    elif kind == 4:
      content = content[:place] + content[end:]
    else:
      piece = content[place:end]
      content = (
        content[:end] + piece * random_.choice((1, 3, 300)) + content[end:]
      )
  return content


def inject(
  place: Path, reference: Path, seed: int, number: int
) -> list[Outcome]:
  """Reads `number` damaged inputs, of formats in turn.

  Args:
    place: a new folder for the inputs.
    reference: the work folder of the reference run.
    seed: of the damage.
    number: of inputs.
  """
  random_ = random.Random(seed)
  formats = samples(reference)
  names = sorted(formats)
  return [
    _inject(place / str(i), names[(seed + i) % len(names)], formats, random_)
    for i in range(number)
  ]


def _inject(
  folder: Path,
  name: str,
  formats: dict[str, tuple[dict[str, bytes], Reader]],
  random_: random.Random,
) -> Outcome:
  from infoxlm_jax.errors import InputError, StorageError

  files, read = formats[name]
  damaged = random_.choice(sorted(files))
  for path, content in files.items():
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(
      mutated(content, random_) if path == damaged else content
    )
  kind, start = f"bad input: {name}", time.monotonic()
  where = f"{name} {damaged} in {folder}"
  try:
    read(folder)
  except (InputError, StorageError) as error:
    outcome, detail = DETECTED, str(error)
  except BaseException as error:  # a panic of Rust is no Exception
    outcome, detail = TRACEBACK, f"{type(error).__name__}: {error}"
  else:
    # What is left is an input of the format, too; nobody can tell.
    outcome, detail, where = HARMLESS, "", f"accepted as {name}"
  if time.monotonic() - start > _SECONDS:
    outcome, detail = HUNG, f"{time.monotonic() - start:.0f} s"
  return Outcome(kind, outcome, where, detail)


def _files(folder: Path, pattern: str) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.glob(pattern))
    if path.is_file()
  }


def _packers() -> dict[str, Callable[[bytes], bytes]]:
  import bz2
  import gzip
  import lzma

  import zstandard

  return {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
  }


def _tokenizer_json() -> bytes:
  specials = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
  vocabulary = {word: i for i, word in enumerate((*specials, "In", "the"))}
  added = [
    {"id": i, "content": name, "special": True, "single_word": False}
    | {"lstrip": False, "rstrip": False, "normalized": False}
    for i, name in enumerate(specials)
  ]
  model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
  return json.dumps(
    {"version": "1.0", "added_tokens": added, "model": model}
  ).encode()


_TMX = b"""<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4"><header srclang="en" segtype="sentence"/><body>
<tu><tuv xml:lang="en"><seg>one &amp; two</seg></tuv>
<tuv xml:lang="de"><seg>eins <bpt i="1">und</bpt> zwei</seg></tuv></tu>
</body></tmx>
"""
_GIN = b"""from __gin__ import dynamic_registration
from infoxlm_jax.training import options
include 'gin/quickstart.gin'
STEPS = 5
options.RunOptions.log_every = 2
"""
