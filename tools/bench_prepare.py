"""Measures prepare: tokens a second, and peak memory against input size.

    python tools/bench_prepare.py --input ../shared/data/parallel/en-*.tsv.xz \
      --tokenizer ../shared/data/tokenizer/xlmr.sentencepiece.bpe.model
    python tools/bench_prepare.py --input ... --tokenizer ... --sizes 10 100

The lines of the inputs (two tab-separated columns; en-fr in a file's name are
their languages) are repeated to the wanted sizes with a counter before each
side, so that none is a duplicate. Memory is the sum over all processes of what
they hold at a time, measured every 50 ms: "anonymous" is their own, "resident"
also counts mapped files, which the system takes back where it needs room.
CPU seconds are those of all processes, starting up included: where other
programs share the cores, tokens a CPU second say more than tokens a second.
Prints one line of JSON last.
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoxlm_jax.data.chunks import encode_flat
from infoxlm_jax.data.files import read_lines, stem
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizer import load_tokenizer
from infoxlm_jax.errors import InputError, StorageError

_MB = 1_000_000
_WORKER = """
import sys
from infoxlm_jax.data.corpora import TextFiles, Tsv
from infoxlm_jax.data.prepare import prepare

if __name__ == "__main__":
  kind, folder, output, tokenizer, workers = sys.argv[1:]
  corpus = Tsv(folder + "/*.tsv") if kind == "pairs" else TextFiles(
    folder + "/*.txt")
  prepare(output, tokenizer=tokenizer, row_length=512, corpora=[corpus],
    workers=int(workers), progress=False)
"""


def write_input(
  lines: list[tuple[str, str, str]], folder: Path, kind: str, size: int
) -> None:
  """Files of about `size` bytes together, a counter before each side."""
  folder.mkdir()
  files: dict[str, Any] = {}
  written = 0
  for number, (name, a, b) in enumerate(itertools.cycle(lines)):
    if written >= size:
      break
    language = name.split("-")[1]
    if kind == "pairs":
      file, text = f"{name}.tsv", f"{number} {a}\t{number} {b}\n"
    else:
      file, text = f"{language}.txt", f"{number} {b}\n"
    if file not in files:
      files[file] = (folder / file).open("wb")
    written += files[file].write(text.encode())
  for handle in files.values():
    handle.close()


def tokenizer_limit(lines: list[tuple[str, str, str]], path: Path) -> float:
  """Tokens a second of the tokenizer alone, a CPU second, best of three."""
  model = load_tokenizer(path)
  texts = [text for _, a, b in lines[:40_000] for text in (a, b)]
  best = 0.0
  for _ in range(3):
    start, tokens = time.process_time(), 0
    for first in range(0, len(texts), 4096):
      ids, _ = encode_flat(model, texts[first : first + 4096])
      tokens += len(ids)
    best = max(best, tokens / (time.process_time() - start))
  return best


def run(
  kind: str, folder: Path, output: Path, tokenizer: Path, workers: int
) -> dict[str, Any]:
  """Prepares in a process of its own, watched from here."""
  root = str(Path(__file__).resolve().parents[1])
  start = time.perf_counter()
  used = _cpu_seconds()
  process = subprocess.Popen(
    [
      *(sys.executable, "-c", _WORKER, kind, str(folder), str(output)),
      *(str(tokenizer), str(workers)),
    ],
    env=os.environ
    | {
      "PYTHONPATH": os.pathsep.join([root, *sys.path]),
      "JAX_PLATFORMS": "cpu",
    },
  )
  peak = {"anonymous": 0, "resident": 0}
  while process.poll() is None:
    for name, value in _memory(process.pid).items():
      peak[name] = max(peak[name], value)
    time.sleep(0.05)
  if process.returncode:
    raise StorageError(f"prepare ended with status {process.returncode}")
  seconds = time.perf_counter() - start
  used = _cpu_seconds() - used
  corpora = Store(output / "train").manifest.corpora
  tokens = sum(corpus.tokens for corpus in corpora)
  dropped = sum(sum(corpus.dropped.values()) for corpus in corpora)
  return {
    "kind": kind,
    "input_mb": round(sum(f.stat().st_size for f in folder.iterdir()) / _MB),
    "workers": workers,
    "seconds": round(seconds, 1),
    "tokens": tokens,
    "dropped": dropped,
    "tokens_per_second": round(tokens / seconds),
    "tokens_per_cpu_second": round(tokens / used),
    **{f"peak_{k}_mb": round(v / _MB) for k, v in peak.items()},
  }


def _cpu_seconds() -> float:
  """CPU time of all processes that were started here and have ended."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def _memory(pid: int) -> dict[str, int]:
  """Bytes of a process and its descendants together."""
  total = {"anonymous": 0, "resident": 0}
  for each in _descendants(pid):
    try:
      status = Path(f"/proc/{each}/status").read_text()
    except OSError:
      continue
    for line in status.split("\n"):
      for key, name in (("RssAnon:", "anonymous"), ("VmRSS:", "resident")):
        if line.startswith(key):
          total[name] += 1024 * int(line.split()[1])
  return total


def _descendants(pid: int) -> Iterator[int]:
  yield pid
  try:
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
  except OSError:
    return
  for task in tasks:
    try:
      children = (task / "children").read_text().split()
    except OSError:
      continue
    for child in children:
      yield from _descendants(int(child))


def main(argv: list[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--input", nargs="+", type=Path, required=True)
  parser.add_argument("--tokenizer", type=Path, required=True)
  parser.add_argument(
    "--sizes", nargs="+", type=int, default=[10, 100], help="MB of the pairs"
  )
  parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
  parser.add_argument(
    "--folder", type=Path, help="where to work; by default a temporary folder"
  )
  args = parser.parse_args(argv)
  try:
    lines = [
      (stem(path), *line.split("\t")[:2])
      for path in args.input
      for _, line in read_lines(path)
    ]
    limit = tokenizer_limit(lines, args.tokenizer)
    jobs = [("text", args.sizes[-1], workers) for workers in args.workers]
    jobs += [
      ("pairs", size, workers)
      for size in args.sizes
      for workers in args.workers
    ]
    runs = []
    with tempfile.TemporaryDirectory(dir=args.folder) as work:
      for number, (kind, size, workers) in enumerate(
        tqdm.tqdm(jobs, disable=None)
      ):
        folder = Path(work) / f"{kind}{size}"
        if not folder.exists():
          write_input(lines, folder, kind, size * _MB)
        output = Path(work) / f"out{number}"
        runs.append(run(kind, folder, output, args.tokenizer, workers))
        print(json.dumps(runs[-1]), file=sys.stderr)
        shutil.rmtree(output)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  except StorageError as error:
    print(f"error: {error}", file=sys.stderr)
    return 3
  except KeyboardInterrupt:
    return 130
  result = {
    "tokenizer_tokens_per_cpu_second": round(limit),
    "runs": runs,
  }
  print(json.dumps(result))
  return 0


if __name__ == "__main__":
  sys.exit(main())
