"""Warns during a run when a contrast has collapsed."""

from collections.abc import Mapping

from infoxlm_jax.evaluation import collapse
from infoxlm_jax.training.program import Program


def collapse_warning(
  program: Program, metrics: Mapping[str, float], number: int, window: int
) -> str | None:
  """Why a contrast counts as collapsed; None if none does, or it is early.

  During the warm-up of the learning rate, and before an objective's
  `start_step`, vectors are nearly alike in any run. The warm-up is over when
  the rate does not rise any more.

  Args:
    program: of the run.
    metrics: the mean over the last updates, without "train/" in front.
    number: of the last of these updates.
    window: how many they are.
  """
  first = number - window  # updates before the window
  rate = program.update.learning_rate
  if first < 0 or rate(first + 1) > rate(first):
    return None
  started = tuple(
    f"{name}/"
    for name, objective in program.objectives.items()
    if first >= objective.start_step
  )
  return collapse.collapsed(
    {k: value for k, value in metrics.items() if k.startswith(started)}
  )
