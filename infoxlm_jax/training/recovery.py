"""Finds states that must not be kept, and goes back to a good checkpoint."""

import dataclasses
import itertools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from infoxlm_jax.checkpoint import checksums
from infoxlm_jax.checkpoint.metadata import Position
from infoxlm_jax.training.bad_updates import BadUpdates, Diverged
from infoxlm_jax.training.run import Run
from infoxlm_jax.training.state import TrainState


def check_finite(state: TrainState) -> None:
  """Refuses a state that must not be saved.

  Raises:
    BadUpdates: an array has a number that is not finite; the message names
      it.
  """
  if bad := checksums.not_finite(state):
    raise BadUpdates(
      int(state.step),
      f"update {int(state.step)}: {', '.join(bad[:3])} is not finite; this"
      " state is not saved.",
    )


def with_replay(
  train_step: Callable[[Any, Any], tuple[Any, Any]], every: int | None
) -> Callable[[Any, Any], tuple[Any, Any]]:
  """An update that computes every n-th one twice and compares all bits.

  A device that computes wrongly without an error shows in this way. It takes
  the memory of a second state.

  Args:
    train_step: donates the state, see step.make_train_step.
    every: updates from one that is computed twice to the next. None: none is.

  Returns:
    A function like `train_step`. It raises Diverged where an array of the
    state comes out with other bits the second time; the message names it.
  """
  if every is None:
    return train_step
  calls = itertools.count(1)

  def replayed(state: Any, batch: Any) -> tuple[Any, Any]:
    number = next(calls)
    if number % every:
      return train_step(state, batch)
    again, _ = train_step(jax.tree.map(jnp.copy, state), batch)
    sums = checksums.describe(again)
    del again
    state, metrics = train_step(state, batch)
    same = checksums.describe(state)
    if differing := [path for path in same if same[path] != sums[path]]:
      raise Diverged(
        f"update {number} of this start, computed twice from the same numbers,"
        f" differs in {', '.join(differing[:3])}: a device or its memory is"
        " faulty, or an operation is not deterministic there. This update is"
        " not saved; start again, on other devices if it happens again."
      )
    return state, metrics

  return replayed


def go_back(run: Run, bad: BadUpdates) -> Run:
  """The run at its newest checkpoint, with the data after the bad updates.

  The position in the data stays where it is: the batches since the checkpoint
  are passed over, good and bad ones. A checkpoint that was gone back to once
  is not used a second time. If not one update after it was good, it is set
  aside, and the one before it is used.

  Args:
    run: with its position where the bad updates were noticed.
    bad: the reason.

  Raises:
    Diverged: there is no checkpoint to go back to, or the run has gone back to
      this one already.
    StorageError: the last checkpoint could not be written.
  """
  run.checkpoints.wait()
  steps, before = run.checkpoints.steps(), None
  if not steps:
    raise Diverged(f"{bad} There is no checkpoint to go back to.")
  if steps[-1] == run.returned_to:
    if bad.first > steps[-1] + 1 or len(steps) == 1:
      raise Diverged(
        f"{bad} The run had gone back to checkpoint {steps[-1]} and to other"
        " data already, so it stops here."
      )
    before = steps[-1]
  restored = run.program.restore(run.checkpoints, before)
  assert restored is not None
  state, files = restored
  step = int(state.step)
  logging.warning(
    "%s Going back to checkpoint %d, and on with data after these updates.",
    bad,
    step,
  )
  stored = Position.read(files)
  return dataclasses.replace(
    run,
    state=state,
    position=dataclasses.replace(
      run.position, tokens=stored.tokens, metric_lines=stored.metric_lines
    ),
    resumed=True,
    returned_to=step,
  )
