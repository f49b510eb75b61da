"""What the evaluation jobs share: their model, and the folder they write."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation import inference
from infoxlm_jax.evaluation.report import results_file
from infoxlm_jax.model.pooling import Reading
from infoxlm_jax.version import __version__


@dataclasses.dataclass(frozen=True)
class ModelOptions:
  """A model, and how it reads texts.

  Attributes:
    path: a run's folder, a checkpoint's, a Hugging Face folder, or a file of
      weights.
    tokenizer: file or folder of it, where the model has none.
    prefix: put before every text, such as "query: " for e5.
    max_length: longest text in tokens, `<s>` and `</s>` included; None: as
      many as the model has positions.
    batch_tokens: computed at a time on each device.
    dtype: of the computation.
    allow_pickle: whether torch's pickled files may be read.
    devices: how many to use; None: all.
  """

  path: str
  tokenizer: str | None = None
  prefix: str = ""
  max_length: int | None = None
  batch_tokens: int = 4096
  dtype: str = "float32"
  allow_pickle: bool = False
  devices: int | None = None

  def load(self) -> inference.Encoder:
    """The encoder; see `inference.load` for what it raises."""
    return inference.load(
      self.path,
      tokenizer=self.tokenizer,
      dtype=self.dtype,
      allow_pickle=self.allow_pickle,
      devices=self.devices,
    )

  def reading(self) -> Reading:
    return Reading(
      prefix=self.prefix,
      max_length=self.max_length,
      batch_tokens=self.batch_tokens,
    )


def check_folder(model_dir: str | None, job: str) -> None:
  """Checks that a job may write into model_dir, before any work is done.

  Args:
    model_dir: None in a dry run without one.
    job: "job" of the results.json that an earlier run of it has left there.

  Raises:
    InputError: the folder holds something else, such as a training run.
  """
  if jax.process_count() > 1:
    raise InputError("evaluation runs in one process: leave out --distributed")
  if model_dir is None:
    return
  if "://" in model_dir:
    raise InputError(
      f"MODEL_DIR={model_dir!r} is an address; evaluation writes into a folder"
      " of this machine."
    )
  folder = Path(model_dir)
  if folder.is_file():
    raise InputError(f"MODEL_DIR={model_dir!r} is a file, not a folder.")
  earlier = results_file.read_results(folder)
  known = earlier is not None and earlier.get("job") == job
  if folder.is_dir() and any(folder.iterdir()) and not known:
    raise InputError(
      f"{folder} holds files that are not of an earlier {job} job, and these"
      " could be overwritten. Choose another MODEL_DIR."
    )


def facts(
  job: str, options: ModelOptions, encoder: inference.Encoder, start: float
) -> dict[str, Any]:
  """Facts of a job for results.json.

  Args:
    job: its name.
    options: of the model.
    encoder: the model.
    start: time.monotonic() when the job began.
  """
  device = encoder.mesh.devices.flat[0].device_kind
  return {
    "job": job,
    "model": options.path,
    "prefix": options.prefix,
    "parameters": sum(
      x.size
      for x in jax.tree.leaves(
        {name: encoder.params[name] for name in ("embed", "layers")}
      )
    ),
    "seconds": time.monotonic() - start,
    "device": f"{encoder.mesh.size} x {device}",
    "version": __version__,
  }
