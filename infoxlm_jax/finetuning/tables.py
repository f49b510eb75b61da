"""Tables of a fine-tuning job's results: markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infoxlm_jax.data.languages import scripts_of
from infoxlm_jax.evaluation.report import results_file
from infoxlm_jax.finetuning import choice, published
from infoxlm_jax.finetuning.task import Task

RANDOM = "random"  # results["initial_weights"] of a model without pretraining
_XNLI_CLASSES = ("contradiction", "entailment", "neutral")
_RULES = {
  choice.ONE_MODEL: "one model, the best by mean dev (#M=1)",
  choice.MODEL_EACH: "a model for each language, the best by its dev (#M=N)",
}
Results = Mapping[str, Any]


def shown_split(task: Task) -> str:
  """The split that tables show: test, or dev where there is no test."""
  return "test" if task.test else "dev"


def main_table(task: Task, results: Results) -> str:
  """Markdown: measures by language, mean and deviation over the seeds."""
  split = shown_split(task)
  main = results[task.name]
  measures = list(main[split])
  rows = [[split, *measures]]
  for language in main[split][task.metric]:
    cells = [
      _cell(main[split][name][language], main[f"{split}_std"][name][language])
      for name in measures
    ]
    rows.append([language, *cells])
  return _table(rows)


def gap(values: Mapping[str, float], source: str) -> float | None:
  """Score of the language trained on minus the mean of the others.

  None where there are no others.
  """
  others = [v for k, v in values.items() if k not in (source, "mean")]
  if source not in values or not others:
    return None
  return values[source] - float(np.mean(others))


def by_script(values: Mapping[str, float]) -> dict[str, float]:
  """Mean score of the languages of each script, by its name."""
  groups: dict[str, list[float]] = {}
  for language, value in values.items():
    if language != "mean":
      script = next(iter(scripts_of(language)), "unknown")
      groups.setdefault(script, []).append(value)
  return {script: float(np.mean(own)) for script, own in groups.items()}


def csv_of(task: Task, results: Results) -> str:
  """CSV: rule, split, measure, language, mean, deviation; fractions."""
  out = io.StringIO()
  writer = csv.writer(out)
  writer.writerow(["choice", "split", "measure", "language", "mean", "std"])
  main = results[task.name]
  for rule in (choice.ONE_MODEL, choice.MODEL_EACH):
    part = main if rule == choice.ONE_MODEL else main.get(rule, {})
    for split in ("test", "dev", "crossed"):
      for name, values in part.get(split, {}).items():
        for language, value in values.items():
          deviation = part[f"{split}_std"][name][language]
          writer.writerow([rule, split, name, language, value, deviation])
  return out.getvalue()


def report(task: Task, results: Results, pictures: Sequence[Path]) -> str:
  """The text of report.md."""
  split, main = shown_split(task), results[task.name]
  seeds = results["seeds"]
  lines = [
    f"# {task.name} of {results['data']}",
    "",
    f"Per cent; mean and standard deviation over {len(seeds)} seeds. Models are"
    f" chosen on dev, never on test: {_RULES[choice.ONE_MODEL]}.",
    "",
    *_floor_lines(results),
    main_table(task, results),
    "",
  ]
  if choice.MODEL_EACH in main:
    part = main[choice.MODEL_EACH]
    mean = part[split][task.metric]["mean"]
    deviation = part[f"{split}_std"][task.metric]["mean"]
    lines += [
      f"With {_RULES[choice.MODEL_EACH]} the mean is {_cell(mean, deviation)}.",
      "",
    ]
  lines += _gap_lines(task, main[split][task.metric])
  lines += _crossed_lines(main.get("crossed", {}).get(task.metric))
  if task.name == "classification" and task.classes == _XNLI_CLASSES:
    lines += _published_lines(task, results)
  lines += ["## What was run", "", *_facts(task, results), ""]
  for picture in pictures:
    lines += [f"![{picture.stem}](figures/{picture.name})", ""]
  return "\n".join(lines).rstrip() + "\n"


def _floor_lines(results: Results) -> list[str]:
  """What a reader must not miss: a model that was never pretrained."""
  if results.get("initial_weights") != RANDOM:
    return []
  return [
    "**Without pretraining**: this model started from random weights. Its"
    " figures are a floor for models of the same shape.",
    "",
  ]


def _gap_lines(task: Task, values: Mapping[str, float]) -> list[str]:
  lines = []
  sources = list(task.train)
  if len(sources) == 1 and (found := gap(values, sources[0])) is not None:
    lines += [
      f"Transfer gap ({sources[0]} minus the mean of the others):"
      f" {100 * found:.1f} points.",
      "",
    ]
  groups = by_script(values)
  if len(groups) > 1:
    rows = [["script", f"mean {task.metric}"]]
    rows += [[name, f"{100 * v:.1f}"] for name, v in groups.items()]
    lines += ["## By script", "", _table(rows), ""]
  return lines


def _crossed_lines(values: Mapping[str, float] | None) -> list[str]:
  if not values:
    return []
  same: list[float] = []
  mixed: list[float] = []
  for pair, value in values.items():
    first, _, second = pair.partition("-")
    if second:
      (same if first == second else mixed).append(value)
  if not same or not mixed:
    return []
  return [
    "## Two languages in one example",
    "",
    f"Mean with both texts in one language {100 * np.mean(same):.1f} %, with"
    f" two languages {100 * np.mean(mixed):.1f} %.",
    "",
  ]


def _published_lines(task: Task, results: Results) -> list[str]:
  """The paper's rows, and ours in the same columns."""
  setting = (
    published.TRANSFER if len(task.train) == 1 else published.TRANSLATE_TRAIN
  )
  columns = published.XNLI_LANGUAGES
  rows = [["system", "#M", *columns, "mean"]]
  for row in published.XNLI:
    if row.setting == setting:
      cells = [f"{value:.1f}" for value in row.accuracy]
      rows.append([row.system, row.models, *cells, f"{row.mean:.1f}"])
  main = results[task.name]
  name = "measured here"
  if results.get("initial_weights") == RANDOM:
    name += ", without pretraining"
  for models, part in (("1", main), ("N", main.get(choice.MODEL_EACH))):
    if part and "test" in part:
      own = part["test"][task.metric]
      # A mean over some of the languages is none to compare.
      whole = set(columns) <= set(own)
      shown = {k: v for k, v in own.items() if k != "mean" or whole}
      cells = [
        f"{100 * shown[k]:.1f}" if k in shown else "–"
        for k in (*columns, "mean")
      ]
      rows.append([f"**{name}**", models, *cells])
  return [
    f"## Beside published figures: {setting}",
    "",
    f"Rows of systems are published, not measured here: {published.SOURCE}."
    " * is quoted there from Conneau et al. 2020. Means are computed from the"
    " languages; the paper prints those of the two rows XLM (w/o TLM) in each"
    " other's place.",
    "",
    _table(rows),
    "",
  ]


def _facts(task: Task, results: Results) -> list[str]:
  seeds = ", ".join(map(str, results["seeds"]))
  chosen = ", ".join(map(str, results["chosen_steps"]))
  seconds = ", ".join(f"{value:.0f}" for value in results["seconds"])
  lines = [
    f"- learning rate {results['rate']:g}, {results['updates']:,} updates,"
    f" seeds {seeds}",
    f"- updates of the chosen models: {chosen}",
    f"- seconds of each run: {seconds}",
  ]
  if len(results["dev_by_rate"]) > 1:
    tried = ", ".join(
      f"{rate}: {100 * value:.1f}"
      for rate, value in results["dev_by_rate"].items()
    )
    lines.append(f"- mean dev {task.metric} by rate, first seed: {tried}")
  return lines + [f"- {line}" for line in facts_in_words(task)]


def facts_in_words(task: Task) -> list[str]:
  """A line for each fact of a task: what was read, cut or left out."""
  return [
    f"{key.replace('_', ' ')}: {_in_words(value)}"
    for key, value in task.facts.items()
  ]


def _in_words(value: Any) -> str:
  if isinstance(value, Mapping):
    return ", ".join(f"{k} {_in_words(v)}" for k, v in value.items())
  if isinstance(value, float):
    return f"{value:.3g}"
  return str(value)


def _cell(mean: float, deviation: float) -> str:
  return f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
  return "\n".join(results_file.markdown(rows))
