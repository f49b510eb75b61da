"""Global batches on the devices, from prepared records."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jax.sharding import Mesh

from infoxlm_jax import partitioning
from infoxlm_jax.data import loader
from infoxlm_jax.data.records import Store


@dataclasses.dataclass(frozen=True)
class Feed:
  """Draws batches; each process builds only its devices' groups.

  Attributes:
    streams: by name.
    mesh: over which groups are split.
    groups: of a batch.
    seed: of the run.
  """

  streams: Mapping[str, Any]
  mesh: Mesh
  groups: int
  seed: int

  def draw(
    self, store: Store, samples: Mapping[str, int], updates: int
  ) -> Iterator[tuple[Any, Mapping[str, Mapping[str, int]]]]:
    """(global arrays, counts of this process) of `updates` batches.

    Args:
      store: records.
      samples: drawn so far, by stream.
      updates: how many batches.
    """
    drawn = loader.batches(
      self.streams,
      store,
      seed=self.seed,
      positions=samples,
      groups=self.groups,
      local_groups=partitioning.local_groups(self.mesh, self.groups),
      steps=updates,
    )
    for arrays, counts in drawn:
      yield partitioning.global_batch(arrays, self.mesh), counts

  def apart(self, use: int) -> "Feed":
    """The same streams in another order, for another use than training."""
    return dataclasses.replace(self, seed=self.seed + use)

  def start(self) -> dict[str, int]:
    """The samples drawn before anything is."""
    return dict.fromkeys(self.streams, 0)
