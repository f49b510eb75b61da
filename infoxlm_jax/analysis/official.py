"""The real update against whole updates of the authors' trainer.

`compare` starts from a file's weights, feeds its batches to the step that
training uses, with the rules of gin/objectives/infoxlm.gin, and measures the
largest difference of every number that the file holds.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infoxlm_jax.analysis import official_file
from infoxlm_jax.analysis.official_differences import (
  BOUNDS,
  Difference,
  apart,
  is_relative,
  keep,
)
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.base import LossSum, Objective
from infoxlm_jax.objectives.contrast import Contrast, ContrastState
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.training import optimizer, schedules, step
from infoxlm_jax.training import state as train_state

Tree = Any


@dataclasses.dataclass(frozen=True)
class Overflow(Objective):
  """No loss, until a flag in its rows makes loss and gradient NaN.

  So an update overflows here where it did there, with the same finite keys.
  """

  stream: str = "overflow"
  weight: float = 1.0
  start_step: int = 0

  def corrupt(
    self, keys_G: Any, rows: Any, model: EncoderConfig
  ) -> tuple[Any, dict[str, jax.Array]]:
    return rows, {"terms": jnp.zeros((), jnp.int32)}

  @staticmethod
  def losses(
    objectives: Mapping[str, Any],
    params: Any,
    encode: Any,
    rows: Mapping[str, Any],
    model: EncoderConfig,
    context: Any,
  ) -> LossSum:
    flags = [jnp.any(own["tokens"] > 0) for own in rows.values()]
    factor = jnp.where(jnp.stack(flags).any(), jnp.nan, 0.0)
    return LossSum(factor * jnp.sum(params["embed"]["norm"]["bias"]), {})


def compare(path: str | Path) -> dict[str, Difference]:
  """The largest differences of all updates of a file, by kind of number.

  Raises:
    InputError: the file cannot be read, or is not of this form.
  """
  path = Path(path)
  case, arrays = official_file.read(path)
  fast = official_file.parameters(path, case, arrays, "fast", 0)
  slow = official_file.parameters(path, case, arrays, "slow", 0)
  if fast is None or slow is None:
    raise InputError(f"{path}: holds no parameters fast_0.* or slow_0.*")
  rate = schedules.linear_warmup_decay(
    case["lr"], case["warmup"], case["total"]
  )
  recipe = _recipe(case, fast[0], rate)
  state = _start(recipe, case, fast[1], slow[1], arrays)
  mesh = partitioning.make_mesh(partitioning.MeshShape(devices=1))
  state = jax.device_put(state, partitioning.shardings(state, mesh))
  update = step.make_train_step(
    recipe, state, mesh, learning_rate=rate, count_skipped=False
  )
  differences = dict.fromkeys(BOUNDS, Difference(0.0, ""))
  overflowing = case.get("overflow", ())
  for i, batch in enumerate(official_file.batches(case, arrays), 1):
    applied = optimizer.updates_applied(state.opt_state, state.step)
    counted = bool(recipe.objectives["xlco"].counts_at(applied))
    if overflowing:
      flag = np.full((case["freq"] * case["batch"], 1, 1), i in overflowing)
      batch["overflow"] = official_file.rows(0 * flag.astype(np.int32)) | {
        "tokens": flag.astype(np.int32),
        "segments": np.zeros(flag.shape, np.int32),
      }
    state, metrics = update(state, batch)
    numbers = _numbers(case, jax.device_get(metrics), counted)
    _add_numbers(differences, numbers, arrays, i)
    _add_arrays(differences, jax.device_get(state), path, case, arrays, i)
  return differences


def momentum(text: str) -> schedules.Schedule:
  """A schedule of the key momentum as --xlco_momentum says it.

  Raises:
    InputError: none of its four forms.
  """
  kind, *rest = text.split(",")
  makers: dict[str, Callable[..., schedules.Schedule]] = {
    "constant": lambda m: schedules.constant(m),
    "constant_with_refresh": lambda m, every: schedules.constant_with_refresh(
      m, int(every)
    ),
    "linear": schedules.linear,
    "exponential": schedules.exponential,
  }
  try:
    return makers[kind](*map(float, rest))
  except (KeyError, TypeError, ValueError):
    raise InputError(
      f"momentum {text!r} is none of the released code's forms: constant,M;"
      " constant_with_refresh,M,EVERY; linear,FIRST,LAST,M,M;"
      " exponential,POWER,LOWEST,HIGHEST"
    ) from None


def _recipe(
  case: Mapping[str, Any], config: EncoderConfig, rate: schedules.Schedule
) -> train_state.Recipe:
  """The released rules; the inputs are masked already."""
  objectives: dict[str, Objective] = {
    "mlm": MaskedLM("mlm"),
    "tlm": MaskedLM("tlm"),
    "xlco": Contrast(
      layer=case["layer"],
      projection=case["proj"],
      temperature=case["tau"],
      mask_prob=0.0,
      queue_size=case["queue"],
      weight=case["lam"],
      start_step=max(case["enable"], 0),
      momentum=momentum(case["momentum"]),
      push_per_microbatch=True,
      push_skipped=True,
      sync_last_five=True,
    ),
  }
  if case.get("overflow"):
    objectives["overflow"] = Overflow()
  adam = optimizer.adamw(
    rate,
    eps=case.get("eps", 1e-6),
    weight_decay=case["wd"],
    clip_norm=case["clip"] or None,
    fairseq_eps=True,
  )
  items = case["freq"] * case["batch"]
  streams = {objective.stream: items for objective in objectives.values()}
  return train_state.Recipe(config, objectives, adam, streams, case["freq"])


def _start(
  recipe: train_state.Recipe,
  case: Mapping[str, Any],
  fast: Tree,
  slow: Tree,
  arrays: official_file.Arrays,
) -> train_state.TrainState:
  contrast = recipe.objectives["xlco"]
  assert isinstance(contrast, Contrast)
  fast, slow = (jax.tree.map(jnp.asarray, params) for params in (fast, slow))
  keys = jnp.asarray(official_file.queue(arrays, 0))
  own = ContrastState(
    contrast.key_params(slow), key_queue.fill(keys, case["batch"])
  )
  state = train_state.create(recipe, fast, train_state.first_rng(0))
  return dataclasses.replace(state, objective_state={"xlco": own})


def _numbers(
  case: Mapping[str, Any], metrics: Mapping[str, Any], counted: bool
) -> dict[str, tuple[str, float]]:
  """Our numbers by their names in the file, and the kind of each."""
  numbers = {}
  for name in official_file.STREAMS:
    count = float(metrics[f"{name}/terms"])
    weight = case["lam"] * counted if name == "xlco" else 1.0
    total = weight * float(metrics[f"{name}/loss"]) * count
    numbers[f"{name}_sum"] = (f"{name} loss", total)
    numbers[f"{name}_n"] = ("terms", count)
  items = numbers["xlco_n"][1]
  everything = sum(numbers[f"{name}_n"][1] for name in official_file.STREAMS)
  numbers["sample_size"] = ("terms", everything)
  hits = float(metrics["xlco/accuracy_queue"])
  return numbers | {
    "loss_bits": ("loss in bits", float(metrics["loss"]) / math.log(2)),
    "grad_norm": ("gradient norm", float(metrics["grad_norm"])),
    "ncorrect": ("accuracy", hits * items),
    "accuracy": ("accuracy", 100 * hits),
    "lr": ("learning rate", float(metrics["learning_rate"])),
    "momentum": ("momentum", float(metrics["xlco/momentum"])),
  }


def _add_numbers(
  differences: dict[str, Difference],
  numbers: Mapping[str, tuple[str, float]],
  arrays: official_file.Arrays,
  update: int,
) -> None:
  for name, (kind, ours) in numbers.items():
    at = f"{name}_{update}"
    if at not in arrays:  # a skipped update logs less
      continue
    theirs = float(arrays[at])
    difference = abs(ours - theirs)
    if math.isnan(theirs) or math.isnan(ours):
      both = math.isnan(theirs) and math.isnan(ours)
      difference = 0.0 if both else math.inf
    elif is_relative(kind) or name == "accuracy":
      difference /= max(abs(theirs), 1e-6)
    keep(differences, kind, difference, at)


def _add_arrays(
  differences: dict[str, Difference],
  state: train_state.TrainState,
  path: Path,
  case: Mapping[str, Any],
  arrays: official_file.Arrays,
  update: int,
) -> None:
  own = state.objective_state["xlco"]
  keys = key_queue.in_order(own.queue, case["queue"])
  theirs = official_file.queue(arrays, update)
  keep(differences, "queue", apart(keys, theirs), f"queue_{update}")
  for which, ours in (("fast", state.params), ("slow", own.key_params)):
    stored = official_file.parameters(path, case, arrays, which, update)
    if stored is None:
      continue
    wanted = dict(jax.tree_util.tree_leaves_with_path(stored[1]))
    kind = "parameters" if which == "fast" else "key parameters"
    for place, value in jax.tree_util.tree_leaves_with_path(ours):
      name = jax.tree_util.keystr(place, simple=True, separator="/")
      where = f"{which}_{update} {name}"
      theirs = wanted[place][: len(value)]  # keys: the first layers only
      if name == "layers/qkv/bias":  # [layers, query key value, ...]
        keep(differences, "key biases", apart(value[:, 1], theirs[:, 1]), where)
        value, theirs = value[:, ::2], theirs[:, ::2]
      projection = name.endswith("/projection")
      own_kind = "projections" if projection else kind
      keep(differences, own_kind, apart(value, theirs), where)
