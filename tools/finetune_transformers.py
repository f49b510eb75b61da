"""Classification of labelled texts in torch and transformers, to compare with.

    python tools/finetune_transformers.py --model FOLDER --train en.train.tsv \
        --test '*.test.tsv' --output OUT

What gin/finetune/tsv_classification.gin does, as a user of transformers writes
it: AutoTokenizer, AutoModel, the head of XLM-R, torch's AdamW, a linear rise
and fall of the rate, gradients clipped to norm 1, batches padded to their
longest text. The dev examples that our job holds out of the training file are
left out here, too. It needs the extra [parity] and uses no jax.
OUT/results.json holds the accuracy of every seed and language, and the seconds
of training.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from infoxlm_jax.data.labelled import tsv
from infoxlm_jax.finetuning.tasks.files import by_language, held_out

_TEST_BATCH = 64


def main() -> int:
  """Parses flags, trains and tests with each seed; one JSON line last."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--model", required=True, help="a Hugging Face folder")
  parser.add_argument("--train", required=True, help="file of label<TAB>text")
  parser.add_argument("--test", required=True, help="path or pattern of files")
  parser.add_argument("--output", required=True, type=Path)
  parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
  parser.add_argument("--rate", type=float, default=2e-5)
  parser.add_argument("--epochs", type=float, default=3.0)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--max_length", type=int, default=128)
  parser.add_argument("--max_steps", type=int, help="of training, to time it")
  parser.add_argument("--threads", type=int, default=2)
  flags = parser.parse_args()
  for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
      print(
        f"{package} is not installed: pip install 'infoxlm_jax[parity]'",
        file=sys.stderr,
      )
      return 2
  train = by_language("--train", flags.train, tsv.read)
  test = by_language("--test", flags.test, tsv.read)
  results = [_seed(flags, seed, train, test) for seed in flags.seeds]
  flags.output.mkdir(parents=True, exist_ok=True)
  report = _summary(flags.seeds, results)
  text = json.dumps(report, indent=1)
  (flags.output / "results.json").write_text(text + "\n", encoding="utf-8")
  print(json.dumps(report))
  return 0


def _seed(
  flags: argparse.Namespace, seed: int, train: Any, test: Any
) -> dict[str, Any]:
  """Accuracy by language, and the seconds of an update, of one seed."""
  import torch
  import transformers

  torch.set_num_threads(flags.threads)
  transformers.set_seed(seed)
  tokenizer = transformers.AutoTokenizer.from_pretrained(flags.model)
  classes = sorted({label for own in train.values() for label in own.labels})
  model = _model(flags.model, len(classes))

  def encoded(own: Any, rows: Sequence[int]) -> list[tuple[list[int], int]]:
    texts = [own.first[row] for row in rows]
    second = None if own.second is None else [own.second[row] for row in rows]
    ids = tokenizer(
      texts, second, truncation=True, max_length=flags.max_length
    )["input_ids"]
    labels = [classes.index(own.labels[row]) for row in rows]
    return list(zip(ids, labels, strict=True))

  examples = [
    example
    for own in train.values()
    for example in encoded(own, held_out(len(own.first))[0].tolist())
  ]
  steps = int(np.ceil(flags.epochs * len(examples) / flags.batch))
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=flags.rate, betas=(0.9, 0.999), weight_decay=0.0
  )
  schedule = transformers.get_linear_schedule_with_warmup(
    optimizer, round(0.1 * steps), steps
  )
  batches = _batches(examples, flags.batch, seed)
  total = min(steps, flags.max_steps or steps)
  model.train()
  seconds = []
  for _ in tqdm.tqdm(range(total), desc=f"seed {seed}", mininterval=5):
    start = time.perf_counter()
    ids, mask, labels = _padded(next(batches), tokenizer.pad_token_id)
    loss = torch.nn.functional.cross_entropy(model(ids, mask), labels)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - start)
  model.eval()
  out: dict[str, float] = {}
  for language, own in test.items() if total == steps else ():
    own_examples = encoded(own, range(len(own.first)))
    out[language] = _accuracy(model, own_examples, tokenizer.pad_token_id)
    print(f"seed {seed}, {language}: {100 * out[language]:.1f} %")
  return {
    "accuracy": out,
    "seconds": sum(seconds),
    "median_update": statistics.median(seconds),
    "updates": total,
  }


def _model(folder: str, classes: int) -> Any:
  """An encoder with dropout .1 and the head of XLM-R's classifier."""
  import torch
  import transformers
  from transformers.models.xlm_roberta import modeling_xlm_roberta

  config = transformers.AutoConfig.from_pretrained(folder)
  config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1
  config.classifier_dropout, config.num_labels = 0.1, classes

  class Classifier(torch.nn.Module):
    def __init__(self) -> None:
      super().__init__()
      self.encoder = transformers.AutoModel.from_pretrained(
        folder, config=config, add_pooling_layer=False
      )
      self.head = modeling_xlm_roberta.XLMRobertaClassificationHead(config)
      for name, value in self.head.named_parameters():
        if name.endswith("weight"):
          torch.nn.init.normal_(value, std=config.initializer_range)
        else:
          torch.nn.init.zeros_(value)

    def forward(self, ids: Any, mask: Any) -> Any:
      hidden = self.encoder(input_ids=ids, attention_mask=mask)
      return self.head(hidden.last_hidden_state)

  return Classifier()


def _batches(examples: Sequence[Any], size: int, seed: int) -> Iterator[Any]:
  """Batches without end; each epoch is in an order of its own."""
  random = np.random.default_rng(seed)
  waiting: list[int] = []
  while True:
    while len(waiting) < size:
      waiting += random.permutation(len(examples)).tolist()
    yield [examples[number] for number in waiting[:size]]
    waiting = waiting[size:]


def _padded(batch: Sequence[tuple[list[int], int]], pad: int) -> Any:
  """Tensors of ids and mask [examples, longest] and labels [examples]."""
  import torch

  longest = max(len(ids) for ids, _ in batch)
  ids = torch.full((len(batch), longest), pad)
  mask = torch.zeros((len(batch), longest), dtype=torch.long)
  for row, (own, _) in enumerate(batch):
    ids[row, : len(own)] = torch.tensor(own)
    mask[row, : len(own)] = 1
  return ids, mask, torch.tensor([label for _, label in batch])


def _accuracy(model: Any, examples: Sequence[Any], pad: int) -> float:
  """Share of right classes; texts of similar lengths share a batch."""
  import torch

  order = sorted(range(len(examples)), key=lambda row: len(examples[row][0]))
  right = 0
  with torch.inference_mode():
    for start in range(0, len(order), _TEST_BATCH):
      rows = order[start : start + _TEST_BATCH]
      ids, mask, labels = _padded([examples[row] for row in rows], pad)
      right += int((model(ids, mask).argmax(-1) == labels).sum())
  return right / len(examples)


def _summary(
  seeds: Sequence[int], results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Means over seeds and languages, beside every seed's own numbers."""
  languages = list(results[0]["accuracy"])
  accuracy: dict[str, Any] = {
    language: [100 * own["accuracy"][language] for own in results]
    for language in languages
  }
  report: dict[str, Any] = {
    "accuracy": accuracy,
    "seeds": list(seeds),
    "seconds_of_training": [own["seconds"] for own in results],
    "median_update": [own["median_update"] for own in results],
    "updates": [own["updates"] for own in results],
  }
  if languages:
    means = [
      statistics.mean(column) for column in zip(*accuracy.values(), strict=True)
    ]
    report["mean"] = statistics.mean(means)
    report["std"] = statistics.stdev(means) if len(means) > 1 else 0.0
  return report


if __name__ == "__main__":
  sys.exit(main())
