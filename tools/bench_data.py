"""Measures preparing and loading; the last line is one JSON object.

    python tools/bench_data.py
    python tools/bench_data.py --input ../shared/data/parallel --lines 5000
    python tools/bench_data.py --no_quickstart

Input: a folder of en-XX.tsv.xz files, two columns, one pair a line. Rates are
tokens a second of CPU time, of all threads, so they are those of one core.
Printed and in the JSON: the tokenizer's own rate and that of preparing; per
row length and stream the rate of loading (records to packed rows, rows chosen
by the stream), the share of places filled, the share of tokens cut, and what
padding each batch to its longest item, as the released code does, would fill;
the share of the quickstart's time that is spent waiting for data.
"""

import argparse
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoxlm_jax.data import fitting, loader
from infoxlm_jax.data.prepare import prepare
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.data.tokenizer import Tokenizer, load_tokenizer
from infoxlm_jax.errors import InputError, StorageError

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("INFOXLM_SHARED", "") or ROOT.parent / "shared")
ROW_LENGTHS = (512, 256)
GROUPS = 8
Pair = tuple[str, str, str]


def read_pairs(folder: Path, lines: int) -> list[Pair]:
  """(language, English, its translation) of the first lines of each file."""
  files = sorted(folder.glob("en-*.tsv.xz"))
  if not files:
    raise InputError(f"{folder} holds no en-XX.tsv.xz: give --input FOLDER")
  found = []
  for path in files:
    language = path.name[3:].partition(".")[0]
    with lzma.open(path, "rt", encoding="utf-8", newline="\n") as file:
      for _, line in zip(range(lines), file, strict=False):
        english, other = line.rstrip("\n").split("\t")[:2]
        found.append((language, english, other))
  return found


def tokenizer_rate(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> float:
  """Tokens a CPU second of the tokenizer alone, on all sentences."""
  texts = [text for pair in pairs for text in pair[1:]]
  start = time.process_time()
  tokens = 0
  for first in range(0, len(texts), 2048):
    tokens += sum(map(len, tokenizer.encode_batch(texts[first : first + 2048])))
  return tokens / (time.process_time() - start)


def prepared(
  folder: Path, tokenizer: Path, row_length: int, pairs: Sequence[Pair]
) -> tuple[Store, float]:
  """Records of the texts and of the pairs, and tokens a CPU second."""

  def read(task: str, split: str) -> Iterator[dict[str, str]]:
    for language, english, other in pairs:
      if task == "text":
        yield {"text": other, "language": language}
        yield {"text": english, "language": "en"}
      else:
        yield {
          "text_a": english,
          "language_a": "en",
          "text_b": other,
          "language_b": language,
        }

  start = time.process_time()
  prepare(
    folder,
    tokenizer=tokenizer,
    row_length=row_length,
    task_modules=(),
    text_task="text",
    pairs_task="pairs",
    multiway_task=None,
    stores={"train": "train"},
    read=read,
  )
  seconds = time.process_time() - start
  store = Store(folder / "train")
  return store, sum(c.tokens for c in store.manifest.corpora) / seconds


def streams(row_length: int) -> dict[str, Any]:
  """The three streams in the paper's batch, 2,048 pairs and as many tokens."""
  pairs = 2048
  return {
    "mlm": TextStream(batch=pairs // 8, row_length=row_length),
    "tlm": PairStream(batch=pairs, row_length=row_length),
    "xlco": ContrastStream(
      batch=pairs, row_length=row_length, mixup="adjacent"
    ),
  }


def load(store: Store, name: str, stream: Any, steps: int) -> dict[str, Any]:
  """Rate, fill and cut of a stream; the best rate of three runs."""
  fitted = stream.fitted(store, GROUPS)
  fit = fitting.fit(stream, store, GROUPS)
  rates, total = [], dict.fromkeys(("tokens", "slots", "cut_tokens"), 0)
  for run in range(3):
    start, tokens = time.process_time(), 0
    for step in range(run * steps, (run + 1) * steps):
      _, counts = loader.build(
        {name: fitted},
        store,
        seed=0,
        positions={name: step * fitted.batch},
        groups=GROUPS,
      )
      tokens += counts[name]["tokens"]
      for key in total:
        total[key] += counts[name][key]
    rates.append(tokens / (time.process_time() - start))
  return {
    "tokens_per_second": round(max(rates)),
    "rows": fitted.rows,
    "fill": round(total["tokens"] / total["slots"], 4),
    "fill_expected": round(fit.fill, 4),
    "cut": round(
      total["cut_tokens"] / (total["tokens"] + total["cut_tokens"]), 6
    ),
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
  rows = [r for r in rows if "train/data_wait_share" in r]
  rows = [r for r in rows if r["step"] > steps // 2]
  return {
    "data_wait_share": float(
      np.mean([r["train/data_wait_share"] for r in rows])
    ),
    "seconds_per_update": float(
      np.mean([r["train/seconds_per_update"] for r in rows])
    ),
  }


def measure(args: argparse.Namespace) -> dict[str, Any]:
  """All numbers; prints them as they come."""
  pairs = read_pairs(args.input, args.lines)
  tokenizer = load_tokenizer(args.tokenizer)
  tokenizer.encode_batch([pair[1] for pair in pairs[:2000]])
  out: dict[str, Any] = {
    "pairs": len(pairs),
    "tokenizer_tokens_per_second": round(tokenizer_rate(tokenizer, pairs)),
  }
  print(f"{len(pairs):,} pairs of {args.input}")
  print(f"tokenizer      {out['tokenizer_tokens_per_second']:>12,} tokens/s")
  with tempfile.TemporaryDirectory(prefix="infoxlm-bench-") as temporary:
    folder = Path(temporary)
    for length in ROW_LENGTHS:
      place = folder / str(length)
      store, rate = prepared(place, args.tokenizer, length, pairs)
      if "prepare_tokens_per_second" not in out:
        out["prepare_tokens_per_second"] = round(rate)
        print(f"prepare        {round(rate):>12,} tokens/s")
      found = {}
      for name, stream in streams(length).items():
        one = load(store, name, stream, args.steps)
        one["padded_fill"] = padded_fill(stream, store, args.padded_batch)
        found[name] = one
        print(
          f"load {name:<4} {length}  {one['tokens_per_second']:>12,} tokens/s,"
          f" fill {100 * one['fill']:.1f} %, cut {100 * one['cut']:.3f} %;"
          f" padded {100 * one['padded_fill']:.1f} %"
        )
      out[f"row_length_{length}"] = found
    if not args.no_quickstart:
      out["quickstart"] = quickstart_wait(folder / "run", args.updates)
      print(
        f"quickstart waits {100 * out['quickstart']['data_wait_share']:.2f} %"
        f" of {out['quickstart']['seconds_per_update']:.2f} s an update"
      )
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
  parser.add_argument("--lines", type=int, default=2000, help="of each file")
  parser.add_argument("--steps", type=int, default=8, help="batches a run")
  parser.add_argument(
    "--padded_batch", type=int, default=16, help="items padded together"
  )
  parser.add_argument("--updates", type=int, default=40, help="of quickstart")
  parser.add_argument("--no_quickstart", action="store_true")
  args = parser.parse_args(argv)
  try:
    print(json.dumps(measure(args)))
  except (InputError, StorageError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 3
  except KeyboardInterrupt:
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main())
