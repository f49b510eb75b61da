"""results.json, report.md and the figure of word alignment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infoxlm_jax.evaluation.report import figures, report_files, results_file

# Of the methods in their order: told apart where their lines meet.
_LOOKS = (
  {"color": figures.BLUE, "marker": "o", "linestyle": "-"},
  {"color": figures.ORANGE, "marker": "s", "linestyle": "--"},
  {"color": figures.GREEN, "marker": "^", "linestyle": ":"},
)
_CHOSEN_ON = {
  "given": "The layer was given.",
  "dev": "The layer was chosen on the dev pairs.",
  "test": "The layer was chosen on the test pairs themselves, so the AER is"
  " likely lower than on other pairs. For a figure to compare with others, give"
  " DEV_PAIRS and DEV_GOLD, or LAYER.",
}
_FACTS = {
  "model": "model",
  "pairs": "pairs",
  "sure_links": "sure links",
  "possible_links": "possible links, with the sure ones",
  "data_hash": "data (hash)",
  "version": "version",
}


def write(folder: Path, results: Mapping[str, Any]) -> None:
  """Writes the files, and prints the result.

  Raises:
    StorageError: a file cannot be written.
  """
  results_file.write_results(folder, results)
  plot(folder / "figures" / "alignment.png", results["alignment"])
  text = in_markdown(results)
  report_files.write(folder, text)
  print(text.partition("\n## ")[0])


def in_markdown(results: Mapping[str, Any]) -> str:
  """The report: the result, the facts, and AER by layer and method."""
  own = results["alignment"]
  lines = [
    "# Word alignment",
    "",
    f"AER {_percent(own['test']['aer'])} % at layer {own['layer']}, method"
    f" {own['method']} (precision {_percent(own['test']['precision'])}, recall"
    f" {_percent(own['test']['recall'])}, F1 {_percent(own['test']['f1'])})."
    f" {_CHOSEN_ON[own['layer_chosen_on']]}",
    "",
  ]
  if "dev" in own:
    lines += [f"AER on dev: {_percent(own['dev']['aer'])} %.", ""]
  facts = [["what", "value"]]
  for key, words in _FACTS.items():
    value = results[key]
    facts.append([words, f"{value:,}" if isinstance(value, int) else value])
  tables = own["test"]["by_layer"]
  rows = [["layer", *tables]]
  for layer, row in enumerate(zip(*_aer(tables).values(), strict=True)):
    rows.append([str(layer), *map(_percent, row)])
  lines += ["## What was measured", "", *results_file.markdown(facts), ""]
  lines += ["## AER by layer", "", *results_file.markdown(rows)]
  lines += [
    "",
    "Per cent; lower is better. Layer 0 is the embedding output. Each sentence"
    " is encoded alone, each of its words is tokenized alone, and two words are"
    " linked where any of their pieces are.",
    "",
    "- argmax: cosines that are the highest of their row and their column.",
    "- itermax: the same, then once more for what is left (SimAlign).",
    "- sinkhorn: dot products, normalised by columns and rows, then itermax"
    " (as XLM-Align labels its pairs).",
    "",
    "![alignment](figures/alignment.png)",
    "",
  ]
  return "\n".join(lines)


def plot(path: Path, own: Mapping[str, Any]) -> None:
  """AER by layer, a line for each method; a ring marks the result.

  Raises:
    StorageError: the file cannot be written.
  """
  tables = _aer(own["test"]["by_layer"])
  with figures.canvas(path, "Alignment error rate by layer", 6, 3.6) as figure:
    axes = figure.subplots()
    for (name, values), look in zip(tables.items(), _LOOKS, strict=True):
      percent = [100 * value for value in values]
      axes.plot(percent, markersize=4, label=name, **look)
    axes.plot(
      own["layer"],
      100 * own["test"]["aer"],
      marker="o",
      markersize=11,
      markerfacecolor="none",
      color="black",
      linestyle="",
      label="result",
    )
    axes.set_xlabel("layer (0: embedding output)")
    axes.set_ylabel("AER, %")
    axes.set_xticks(range(len(values)))
    axes.set_ylim(0, max(1.1 * axes.dataLim.y1, 1.0))
    figure.legend(loc="outside right center")


def _aer(tables: Mapping[str, Any]) -> dict[str, list[float]]:
  return {name: table["aer"] for name, table in tables.items()}


def _percent(value: float) -> str:
  return f"{100 * value:.1f}"
