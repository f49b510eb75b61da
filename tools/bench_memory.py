"""Measures how much memory prepare takes, and how fast it is, by input size.

    python tools/bench_memory.py
    python tools/bench_memory.py --sizes 10 100 --workers 1 --plot memory.png

Input: a folder of en-XX.tsv.xz files, two columns, one pair a line, and a
SentencePiece file; by default those of the folder INFOXLM_SHARED. Its lines
are repeated to the wanted sizes (MB) with a counter before each side, so that
none is a duplicate of another. Memory is the sum over all processes of what
they hold at a time, looked at every 50 ms: "own" cannot be taken from them,
"resident" also counts mapped files, which the system takes back where it needs
room. The last line is one JSON object.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infoxlm_jax.data.corpora.file_names import stem
from infoxlm_jax.data.corpora.open_files import find_files, read_lines
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError, StorageError

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("INFOXLM_SHARED", "") or ROOT.parent / "shared")
MB = 1_000_000


def write_pairs(source: Path, folder: Path, size: int) -> None:
  """TSV files of about `size` bytes together, a counter before each side."""
  folder.mkdir()
  lines = [
    (f"{stem(path)}.tsv", *line.split("\t")[:2])
    for path in find_files(str(source / "en-*.tsv.xz"))
    for _, line in read_lines(path)
  ]
  files: dict[str, Any] = {}
  written = 0
  for number, (name, a, b) in enumerate(itertools.cycle(lines)):
    if written >= size:
      break
    if name not in files:
      files[name] = (folder / name).open("wb")
    written += files[name].write(f"{number} {a}\t{number} {b}\n".encode())
  for file in files.values():
    file.close()


def run(
  folder: Path, output: Path, tokenizer: Path, workers: int
) -> dict[str, Any]:
  """Prepares with the command that users have, watched from here."""
  command = [sys.executable, "-m", "infoxlm_jax.main"]
  command += ["--gin_file=gin/prepare/tsv_pairs.gin"]
  command += [f"--gin.INPUT={folder}/*.tsv", f"--gin.TOKENIZER={tokenizer}"]
  command += [f"--gin.MODEL_DIR={output}", f"--gin.WORKERS={workers}"]
  start, used = time.perf_counter(), _cpu_seconds()
  process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
  peak = {"own": 0, "resident": 0}
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
  return {
    "input_mb": round(sum(f.stat().st_size for f in folder.iterdir()) / MB),
    "workers": workers,
    "seconds": round(seconds, 1),
    "tokens": tokens,
    "dropped": sum(sum(corpus.dropped.values()) for corpus in corpora),
    "tokens_per_second": round(tokens / seconds),
    "tokens_per_cpu_second": round(tokens / used),
    **{f"peak_{name}_mb": round(n / MB) for name, n in peak.items()},
  }


def _cpu_seconds() -> float:
  """CPU time of all processes that were started here and have ended."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def _memory(pid: int) -> dict[str, int]:
  """Bytes of a process and its descendants together."""
  total = {"own": 0, "resident": 0}
  for each in _descendants(pid):
    try:
      status = Path(f"/proc/{each}/status").read_text()
    except OSError:
      continue
    for line in status.split("\n"):
      for key, name in (("RssAnon:", "own"), ("VmRSS:", "resident")):
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


def plot(path: Path, runs: Sequence[dict[str, Any]]) -> None:
  """Peak memory against input size, a line a number of workers."""
  from infoxlm_jax.evaluation.report.figures import BLUE, ORANGE, canvas

  title = "Peak memory of prepare, all processes together"
  with canvas(path, title, 7.0, 4.0) as figure:
    ax = figure.subplots()
    workers = sorted({found["workers"] for found in runs})
    for color, count in zip(itertools.cycle((BLUE, ORANGE)), workers):
      own = [found for found in runs if found["workers"] == count]
      sizes = [found["input_mb"] for found in own]
      for name, style in (("own", "-"), ("resident", ":")):
        ax.plot(
          sizes,
          [found[f"peak_{name}_mb"] for found in own],
          style,
          marker="o",
          color=color,
          label=f"{count} worker{'s' * (count > 1)}, {name}",
        )
    ax.axhline(2000, color="0.6", linewidth=1)
    ax.text(sizes[0], 2000, "2 GB", va="bottom", color="0.4")
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.set_ylim(0)
    ax.set_xlabel("input, MB")
    ax.set_ylabel("memory, MB")
    ax.legend()


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the tool; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  data = SHARED / "data"
  spm = data / "tokenizer" / "xlmr.sentencepiece.bpe.model"
  parser.add_argument("--input", type=Path, default=data / "parallel")
  parser.add_argument("--tokenizer", type=Path, default=spm)
  parser.add_argument(
    "--sizes", nargs="+", type=int, default=[10, 100, 1000], help="MB"
  )
  parser.add_argument("--workers", nargs="+", type=int, default=[2])
  parser.add_argument("--plot", type=Path, help="a PNG to write")
  parser.add_argument(
    "--folder", type=Path, help="where to work; by default a temporary folder"
  )
  args = parser.parse_args(argv)
  runs = []
  try:
    with tempfile.TemporaryDirectory(dir=args.folder) as work:
      for size in args.sizes:
        folder, output = Path(work) / str(size), Path(work) / "out"
        write_pairs(args.input, folder, size * MB)
        for workers in args.workers:
          runs.append(run(folder, output, args.tokenizer, workers))
          print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
          shutil.rmtree(output)
        shutil.rmtree(folder)
    if args.plot:
      plot(args.plot, runs)
  except (InputError, StorageError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2 if isinstance(error, InputError) else 3
  except KeyboardInterrupt:
    return 130
  print(json.dumps(runs))
  return 0


if __name__ == "__main__":
  sys.exit(main())
