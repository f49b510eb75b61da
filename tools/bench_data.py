"""Measures preparing and loading; the last line is one JSON object.

    python tools/bench_data.py
    python tools/bench_data.py --input corpora --tokenizer FILE --lines 5000
    python tools/bench_data.py --no_quickstart

Input: a folder of en-XX.tsv.xz files, two columns, one pair a line, and a
SentencePiece file; by default those of the folder INFOXLM_SHARED. Rates are
tokens a second of CPU time, of all threads, so they are those of one core.
Printed and in the JSON: the tokenizer's own rate and that of preparing, with
one process; per row length and stream the rate of loading (records to packed
rows, rows chosen by the stream), the share of places filled, the share of
tokens cut, and what padding each batch to its longest item, as the released
code does, would fill; the share of the quickstart's time that is spent waiting
for data. How much memory preparing takes: tools/bench_memory.py.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.data import loader, row_budget
from infoxlm_jax.data.corpora.base import Corpus
from infoxlm_jax.data.corpora.file_names import pair_of, stem
from infoxlm_jax.data.corpora.open_files import find_files, read_lines
from infoxlm_jax.data.corpora.sources import TextFiles, Tsv
from infoxlm_jax.data.prepare.pipeline import prepare
from infoxlm_jax.data.prepare.tokenize import encode_flat
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.data.tokenizers.base import Tokenizer, load_tokenizer
from infoxlm_jax.errors import InputError, StorageError

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("INFOXLM_SHARED", "") or ROOT.parent / "shared")
ROW_LENGTHS = (512, 256)
PAIRS = 2048  # an update's, as in the paper
GROUPS = 8


def write_corpora(source: Path, lines: int, folder: Path) -> list[Corpus]:
  """The first lines of each file as pairs, and their sides as texts."""
  (folder / "pairs").mkdir(parents=True)
  (folder / "text").mkdir()
  for path in find_files(str(source / "en-*.tsv.xz")):
    a, b = pair_of(stem(path)) or ("", "")
    rows = []
    for number, line in read_lines(path):
      if number > lines:
        break
      rows.append(line.split("\t")[:2])
    for name, part in (
      (f"pairs/{a}-{b}.tsv", ["\t".join(row) for row in rows]),
      (f"text/{a}.txt", [row[0] for row in rows]),
      (f"text/{b}.txt", [row[1] for row in rows]),
    ):
      with (folder / name).open("a", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{text}\n" for text in part)
  return [Tsv(f"{folder}/pairs/*.tsv"), TextFiles(f"{folder}/text/*.txt")]


def texts_of(corpora: Sequence[Corpus]) -> list[str]:
  """All texts, in the order in which they are read."""
  return [
    text
    for corpus in corpora
    for example in corpus.examples("train")
    for name, text in example.items()
    if name.startswith("text")
  ]


def tokenizer_rate(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
  """Tokens a CPU second of the tokenizer alone."""
  start, tokens = time.process_time(), 0
  for first in range(0, len(texts), 4096):
    tokens += len(encode_flat(tokenizer, texts[first : first + 4096])[0])
  return tokens / (time.process_time() - start)


def prepared(
  folder: Path, corpora: Sequence[Corpus], tokenizer: Path, row_length: int
) -> tuple[Store, float]:
  """Records, and tokens of the input a CPU second."""
  start = time.process_time()
  prepare(
    folder,
    tokenizer=tokenizer,
    row_length=row_length,
    corpora=corpora,
    workers=1,
    progress=False,
  )
  seconds = time.process_time() - start
  store = Store(folder / "train")
  return store, sum(c.tokens for c in store.manifest.corpora) / seconds


def streams(row_length: int) -> dict[str, Any]:
  """The three streams at the paper's batch of pairs, and as many tokens."""
  return {
    "mlm": TextStream(batch=PAIRS // 8, row_length=row_length),
    "tlm": PairStream(batch=PAIRS, row_length=row_length),
    "xlco": ContrastStream(
      batch=PAIRS, row_length=row_length, mixup="adjacent"
    ),
  }


def load(
  batches: Iterator[Any], name: str, steps: int, runs: int = 3
) -> dict[str, Any]:
  """Rate, fill and cut of a stream; the best rate of a few runs."""
  rates = []
  total = dict.fromkeys(("tokens", "slots", "cut_tokens"), 0)
  next(batches)  # opens the files
  for _ in range(runs):
    start, tokens = time.process_time(), 0
    for _ in range(steps):
      _, counts = next(batches)
      tokens += counts[name]["tokens"]
      for key in total:
        total[key] += counts[name][key]
    rates.append(tokens / (time.process_time() - start))
  wanted = total["tokens"] + total["cut_tokens"]
  return {
    "tokens_per_second": round(max(rates)),
    "fill": round(total["tokens"] / total["slots"], 4),
    "cut": round(total["cut_tokens"] / wanted, 6),
  }


def padded_fill(stream: Any, store: Store, batch: int) -> float:
  """Useful over computed tokens where each batch is padded to its longest."""
  drawn = stream.draw(store, 0, np.arange(batch * 256))
  used = computed = 0
  for side in drawn.sides.values():
    lengths = np.minimum([len(x) for x in side.items], stream.row_length)
    used += int(lengths.sum())
    computed += batch * int(lengths.reshape(-1, batch).max(axis=1).sum())
  return round(used / computed, 4)


def quickstart_wait(folder: Path, steps: int) -> dict[str, float]:
  """Share of the time of the quickstart's updates spent waiting for data.

  Of its later half: compilation is not a wait for data, but would hide it.
  """
  command = [sys.executable, "-m", "infoxlm_jax.main"]
  command += ["--gin_file=gin/quickstart.gin", f"--gin.MODEL_DIR={folder}"]
  command += [f"--gin.STEPS={steps}", "--gin.EVAL_EVERY=1000000"]
  done = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, check=False
  )
  if done.returncode:
    raise InputError(f"the quickstart failed: {done.stderr[-500:]}")
  with (folder / "metrics.jsonl").open() as file:
    rows = [json.loads(line) for line in file]
  rows = [r for r in rows if r["step"] > steps // 2]
  found = {}
  for name in ("data_wait_share", "seconds_per_update"):
    values = [r[f"train/{name}"] for r in rows if f"train/{name}" in r]
    found[name] = float(np.mean(values))
  return found


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
  """All numbers; prints them as they come."""
  tokenizer = load_tokenizer(args.tokenizer)
  corpora = write_corpora(args.input, args.lines, folder / "corpora")
  texts = texts_of(corpora)
  tokenizer.encode_batch(texts[:2000])
  out: dict[str, Any] = {
    "texts": len(texts),
    "tokenizer_tokens_per_second": round(tokenizer_rate(tokenizer, texts)),
  }
  print(f"{len(texts):,} texts of {args.input}")
  print(f"tokenizer      {out['tokenizer_tokens_per_second']:>12,} tokens/s")
  for length in ROW_LENGTHS:
    store, rate = prepared(
      folder / str(length), corpora, args.tokenizer, length
    )
    found: dict[str, Any] = {"prepare_tokens_per_second": round(rate)}
    print(f"prepare   {length}  {round(rate):>12,} tokens/s")
    for name, stream in streams(length).items():
      fitted = {name: row_budget.with_rows(stream, store, GROUPS)}
      one = load(
        loader.batches(
          fitted,
          store,
          seed=0,
          positions={name: 0},
          groups=GROUPS,
          prefetch=0,
        ),
        name,
        args.steps,
      )
      one["rows"] = fitted[name].rows
      one["padded_fill"] = padded_fill(stream, store, args.padded_batch)
      found[name] = one
      print(
        f"load {name:<4} {length}  {one['tokens_per_second']:>12,} tokens/s,"
        f" {one['rows']} rows, fill {100 * one['fill']:.1f} %, cut"
        f" {100 * one['cut']:.3f} %; padded {100 * one['padded_fill']:.1f} %"
      )
    out[f"row_length_{length}"] = found
  if not args.no_quickstart:
    wait = quickstart_wait(folder / "run", args.updates)
    print(
      f"quickstart waits {100 * wait['data_wait_share']:.2f} % of"
      f" {wait['seconds_per_update']:.2f} s an update"
    )
    out["quickstart"] = wait
  return out


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  data = SHARED / "data"
  spm = data / "tokenizer" / "xlmr.sentencepiece.bpe.model"
  parser.add_argument("--input", type=Path, default=data / "parallel")
  parser.add_argument("--tokenizer", type=Path, default=spm)
  parser.add_argument("--lines", type=int, default=4000, help="of each file")
  parser.add_argument("--steps", type=int, default=8, help="batches a run")
  parser.add_argument(
    "--padded_batch", type=int, default=16, help="items padded together"
  )
  parser.add_argument("--updates", type=int, default=100, help="of quickstart")
  parser.add_argument("--no_quickstart", action="store_true")
  args = parser.parse_args(argv)
  try:
    with tempfile.TemporaryDirectory(prefix="infoxlm-bench-") as folder:
      print(json.dumps(measure(args, Path(folder))))
  except (InputError, StorageError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 3
  except KeyboardInterrupt:
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main())
