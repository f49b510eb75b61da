"""Warnings where a sentence encoder is continued as if it were none."""

from pathlib import Path

from infoxlm_jax.checkpoint.importers.report import Report
from infoxlm_jax.errors import InputError
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.runtime import read_files
from infoxlm_jax.runtime.model_folder import MODULES, is_sentence_encoder
from infoxlm_jax.training.program import Program

# A file of sentence-transformers.
_SETTINGS = "config_sentence_transformers.json"


def warnings(
  init_from: str, report: Report, program: Program, prefix: str
) -> list[str]:
  """What does not go with the weights that a run starts from.

  Sentence encoders are read at their last layer, and some want a prefix before
  every text. A folder of sentence-transformers is one; weights without the MLM
  head that the run trains may be one.

  Args:
    init_from: file or folder of the weights.
    report: of their import.
    program: of the run.
    prefix: that the run puts before texts.
  """
  contrasts = {
    name: objective
    for name, objective in program.objectives.items()
    if isinstance(objective, Contrast)
  }
  if not contrasts:
    return []
  last, notes = program.model.num_layers, []
  if is_sentence_encoder(Path(init_from)):
    reason = f"is a sentence encoder ({MODULES}):"
  elif _lacks_head(report, program):
    reason = "has no MLM head, as sentence encoders have none; if it is one,"
  else:
    return []
  for name, objective in contrasts.items():
    if objective.layer != last:
      notes.append(
        f"INIT_FROM={init_from} {reason} its vectors are those of its last"
        f" layer, {last}, and {name} contrasts layer {objective.layer}. Set"
        f" --gin.CONTRAST_LAYER={last}, and train vectors that can be used as"
        " before"
      )
  prompts = _prompts(Path(init_from))
  if prompts and not prefix:
    shown = ", ".join(f"{name}: {text!r}" for name, text in prompts.items())
    notes.append(
      f"INIT_FROM={init_from} was trained with prefixes ({shown}), and this run"
      " puts none before its texts: set --gin.PREFIX=TEXT"
    )
  return notes


def _lacks_head(report: Report, program: Program) -> bool:
  """Whether the run's MLM head is none of the weights'."""
  trained = any(isinstance(o, MaskedLM) for o in program.objectives.values())
  return trained and any(
    path.startswith("heads/masked_lm/") for path in report.initialised
  )


def _prompts(folder: Path) -> dict[str, str]:
  """Prefixes by name in the settings of sentence-transformers."""
  path = folder / _SETTINGS
  if not path.is_file():
    return {}
  try:
    prompts = read_files.read_object(path).get("prompts")
  except InputError:  # of other software; only a warning hangs on it
    return {}
  return {
    str(name): text
    for name, text in (prompts if isinstance(prompts, dict) else {}).items()
    if text and isinstance(text, str)
  }
