"""Which checkpoints of a run are kept: three rules, each for itself.

A checkpoint stays as long as any of the rules wants it, so a bad or missing
metric never costs the newest, nor a newer one the best.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orbax.checkpoint as ocp

from infoxlm_jax.errors import InputError

_policy = ocp.checkpoint_managers
DEFAULT_METRIC = "best"


@dataclasses.dataclass(frozen=True)
class Retention:
  """The rules, see options.CheckpointOptions.

  Attributes:
    latest: number of newest checkpoints to keep.
    best: number of best checkpoints to keep. Of two with the same metric the
      later is better; one whose metric is missing or not finite never counts.
    every: keep those of steps that are multiples of this for ever; None: none.
    metric: name by which the metric is stored with a checkpoint.
    lowest: whether a lower metric is better.
  """

  latest: int = 3
  best: int = 1
  every: int | None = None
  metric: str = DEFAULT_METRIC
  lowest: bool = False

  def __post_init__(self) -> None:
    if self.latest < 1 or self.best < 0:
      raise InputError(
        f"keep_latest = {self.latest}, keep_best = {self.best}: keep at least"
        " the newest checkpoint"
      )
    if self.every is not None and self.every < 1:
      raise InputError(
        f"keep_every = {self.every} is not a number of updates; None keeps no"
        " checkpoint for ever"
      )

  def policy(self) -> Any:
    """The rules as orbax' policy."""
    rules: list[Any] = [_policy.LatestN(self.latest)]
    if self.best:
      rules.append(_Best(self))
    if self.every is not None:
      rules.append(_policy.EveryNSteps(self.every))
    return _policy.AnyPreservationPolicy(rules)

  def stored(self, value: float | None) -> dict[str, float] | None:
    """The metric as it is stored with a checkpoint; None: without one."""
    if value is None or not math.isfinite(value):
      return None
    return {self.metric: float(value)}


@dataclasses.dataclass(frozen=True)
class _Best:
  """orbax' BestN, without what has no finite metric of this name."""

  rules: Retention

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> list[bool]:
    del context
    values = [self._value(info.metrics) for info in checkpoints]
    ranked = sorted((v, i) for i, v in enumerate(values) if v is not None)
    kept = {index for _, index in ranked[-self.rules.best :]}
    return [index in kept for index in range(len(checkpoints))]

  def _value(self, metrics: Mapping[str, float] | None) -> float | None:
    value = (metrics or {}).get(self.rules.metric)
    if value is None or not math.isfinite(value):
      return None
    return -value if self.rules.lowest else value
