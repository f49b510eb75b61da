"""Times the encoding of texts, alone or in turns with sentence-transformers.

    python tools/bench_encode.py --model weights/e5
    python tools/bench_encode.py --model e5-st --pooling mean_all --peer

--model is a folder that infoxlm_jax.load reads; for --peer one that
SentenceTransformer reads too, such as tools/export.py writes it. Texts are a
text a line of --input, or else the English and German verses of the
quickstart. Both encode all of them once, which compiles, and then in turns;
texts of every length as they come. The last line is JSON: texts a second
(medians), their ratio (above 1: faster than the peer), and with --peer the
smallest cosine between the vectors of a text.
"""

import argparse
import csv
import gzip
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Encode = Callable[[list[str]], np.ndarray]


def main(argv: list[str] | None = None) -> int:
  """Runs the benchmark."""
  options = _parser().parse_args(argv)
  if options.threads and options.peer:
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
  texts = _texts(options.input)[: options.texts]
  encoders = {"ours": _ours(options)}
  if options.peer:
    encoders["peer"] = _peer(options)
  first = {name: encode(texts) for name, encode in encoders.items()}
  seconds: dict[str, list[float]] = {name: [] for name in encoders}
  for turn in range(options.rounds):
    for name, encode in encoders.items():
      start = time.perf_counter()
      encode(texts)
      seconds[name].append(time.perf_counter() - start)
      print(f"{turn + 1}: {name} {seconds[name][-1]:.2f} s", flush=True)
  report: dict[str, Any] = vars(options) | {"texts": len(texts)}
  for name, taken in seconds.items():
    speed = len(texts) / statistics.median(taken)
    report[f"{name}_texts_per_second"] = round(speed, 1)
    report[f"{name}_seconds"] = [round(one, 3) for one in taken]
  if options.peer:
    medians = {
      name: statistics.median(taken) for name, taken in seconds.items()
    }
    report["ratio"] = round(medians["peer"] / medians["ours"], 3)
    report["smallest_cosine"] = round(_smallest_cosine(*first.values()), 6)
  print(json.dumps(report))
  return 0


def _ours(options: argparse.Namespace) -> Encode:
  import infoxlm_jax

  encoder = infoxlm_jax.load(
    options.model,
    tokenizer=options.tokenizer,
    layer=options.layer,
    pooling=options.pooling,
    prompts={"all": options.prompt},
  )
  print(encoder)
  batch: dict[str, Any] = {"max_length": options.max_length}
  if options.batch_size:
    batch["batch_size"] = options.batch_size
  return lambda texts: encoder.encode(texts, prompt_name="all", **batch)


def _peer(options: argparse.Namespace) -> Encode:
  import sentence_transformers
  import torch

  if options.threads:
    torch.set_num_threads(options.threads)
  model: Any = sentence_transformers.SentenceTransformer(options.model)
  if options.max_length:
    model.max_seq_length = options.max_length
  model.default_prompt_name = None
  return lambda texts: model.encode(
    texts,
    prompt=options.prompt or None,
    batch_size=options.batch_size or 32,
    show_progress_bar=False,
  )


def _texts(path: str | None) -> list[str]:
  if path:
    with open(path, encoding="utf-8", newline="\n") as file:
      return file.read().removesuffix("\n").split("\n")
  from infoxlm_jax.runtime import resources

  name = resources.find("tasks/data/verses.test.tsv.gz")
  with gzip.open(name, "rt", encoding="utf-8", newline="") as file:
    rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return [row[name] for row in rows for name in ("en", "de") if row[name]]


def _smallest_cosine(a_ND: np.ndarray, b_ND: np.ndarray) -> float:
  norms = np.linalg.norm(a_ND, axis=1) * np.linalg.norm(b_ND, axis=1)
  return float((np.einsum("nd,nd->n", a_ND, b_ND) / norms).min())


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--model", required=True, metavar="FOLDER")
  parser.add_argument("--tokenizer", metavar="PATH", help="for our side")
  parser.add_argument("--input", metavar="FILE", help="a text a line")
  parser.add_argument(
    "--texts", type=int, default=2000, help="the first so many"
  )
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--layer", type=int, help="default: the last")
  parser.add_argument("--pooling", default="mean_all")
  parser.add_argument("--prompt", default="", help="put before every text")
  parser.add_argument("--max_length", type=int, help="in tokens")
  parser.add_argument(
    "--batch_size", type=int, help="default: 4,096 tokens here, 32 texts there"
  )
  parser.add_argument(
    "--peer", action="store_true", help="sentence-transformers"
  )
  parser.add_argument(
    "--threads", type=int, help="of the peer; default: its own"
  )
  return parser


if __name__ == "__main__":
  sys.exit(main())
