"""Global batches on the devices, from prepared records."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from infoxlm_jax.data import alternating_stream, loader, prepared_files
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.runtime import distributed, limits


@dataclasses.dataclass(frozen=True)
class Feed:
  """Draws batches; each process builds only its devices' groups.

  Attributes:
    streams: by name.
    mesh: over which groups are split.
    groups: pieces of a batch.
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

  def epochs(
    self, store: Store, samples: Mapping[str, int]
  ) -> dict[str, float]:
    """Epochs of each language or pair of each stream, by metric name."""
    epochs: dict[str, float] = {}
    for name, stream in self.streams.items():
      own = loader.stream_seed(self.seed, name)
      parts = alternating_stream.parts(name, stream, samples[name])
      for part, (one, position) in parts.items():
        by_corpus = one.mixture(store, own).epochs(position)
        for corpus, count in by_corpus.items():
          epochs[f"data/{part}/epochs/{corpus}"] = count
    return epochs

  def apart(self, use: int) -> "Feed":
    """The same streams in another order, for a use other than training."""
    return dataclasses.replace(self, seed=self.seed + use)

  def start(self) -> dict[str, int]:
    """No samples drawn yet, by stream."""
    return dict.fromkeys(self.streams, 0)


def check_data(data: str | None, check: Callable[[], Any] | None) -> None:
  """Checks that the data are there, which takes no time.

  Args:
    data: a folder of prepared records, or None.
    check: called on process 0 if `data` is None.

  Raises:
    InputError: they are not.
  """
  with distributed.together("looking for the data"):
    if jax.process_index() == 0:
      if data is not None:
        Store(Path(data) / "train")
      elif check is not None:
        check()


def own_folder(model_dir: str | Path) -> Path:
  """The folder of the data that a run prepares itself."""
  return Path(model_dir) / "data"


def prepared_folder(
  folder: Path, data: str | None, prepare: Callable[..., Any] | None
) -> Path:
  """The folder of prepared records; prepares them if none is given.

  At each start all of its files are compared with their hashes, which takes
  seconds; of records of more than limits.VERIFIED only the sizes, which one
  line says.

  Args:
    folder: the run's; records that are prepared now go into folder/data.
    data: a folder of prepared records.
    prepare: called with output=..., on process 0 only.

  Raises:
    InputError: neither is given, or the records are not those that were
      prepared.
  """
  if data is not None:
    Store(Path(data) / "train")
    with distributed.together("comparing the data with their hashes"):
      if jax.process_index() == 0:
        notes = prepared_files.verify(Path(data), limits.VERIFIED.value)
        print(*notes, sep="\n", end="\n" if notes else "", flush=True)
    return Path(data)
  if prepare is None:
    raise InputError(
      "neither DATA (a prepared folder) nor a way to prepare one is given;"
      " set --gin.DATA=FOLDER"
    )
  output = own_folder(folder)
  with distributed.together("preparing the data"):
    if jax.process_index() == 0:
      if not output.exists():
        print(f"preparing the data into {output}", flush=True)
      prepare(output=output)
  return output
