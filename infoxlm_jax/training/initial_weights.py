"""The first state of a run that starts from given weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from infoxlm_jax.checkpoint.importers.find_tokenizer import (
  check_dictionary,
  find_tokenizer,
)
from infoxlm_jax.checkpoint.importers.load import (
  check_fits,
  load_weights,
  model_of,
)
from infoxlm_jax.checkpoint.importers.report import Report
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.runtime.run_layout import find_step
from infoxlm_jax.training import state as train_state
from infoxlm_jax.training.state import Recipe, TrainState

REPORT_FILE = "init_from.txt"  # in the run's folder


def check(init_from: str, model: EncoderConfig, allow_pickle: bool) -> None:
  """Checks that weights are of this model; reads no tensors if it can.

  Raises:
    InputError: they are of another model, or there are none.
  """
  check_fits(model, model_of(init_from, allow_pickle=allow_pickle), init_from)


def check_tokenizer(init_from: str, tokenizer: Tokenizer) -> None:
  """Checks that an id stands for the same piece in data and weights.

  Compares pieces and not hashes alone, since XLM-R's vocabulary is published
  as a SentencePiece file and as a tokenizer.json. Weights without a tokenizer
  and without fairseq's dict.txt are accepted.

  Raises:
    InputError: an id stands for two pieces; the message has both.
  """
  theirs = find_tokenizer(init_from)
  if theirs is None and find_step(Path(init_from)) is None:
    check_dictionary(Path(init_from), tokenizer)
  if theirs is None or theirs.sha256 == tokenizer.sha256:
    return
  count = max(theirs.vocab_size, tokenizer.vocab_size)
  first, second = (
    [*t.pieces(range(t.vocab_size)), *["nothing"] * (count - t.vocab_size)]
    for t in (theirs, tokenizer)
  )
  for i, (a, b) in enumerate(zip(first, second, strict=True)):
    if a != b:
      raise InputError(
        f"{init_from}: in the weights' tokenizer (SHA-256"
        f" {theirs.sha256[:12]}...) id {i} is {a!r}, in the data's"
        f" ({tokenizer.sha256[:12]}...) it is {b!r}: they do not belong"
        f" together. Prepare the data with TOKENIZER={init_from}"
      )


def read_params(
  init_from: str,
  *,
  allow_pickle: bool,
  seed: int,
  model: EncoderConfig,
  objectives: Mapping[str, Objective],
  mesh: Mesh,
) -> tuple[dict[str, Any], Report]:
  """Parameters for these objectives, laid out over the mesh.

  The weights must hold the encoder. Heads that they lack are initialised, and
  heads that no objective uses are ignored; the report lists both.

  Raises:
    InputError: see load_weights; or a head of another shape.
  """
  random = train_state.random_params(seed, model, objectives)
  wanted = jax.eval_shape(random)["heads"]
  _, params, report = load_weights(
    Path(init_from),
    allow_pickle=allow_pickle,
    mesh=mesh,
    heads=list(wanted),
    model=model,
  )
  heads = params["heads"]
  missing = [name for name in wanted if name not in heads]
  for name in heads:
    _check_head(init_from, name, heads[name], wanted[name])
  if missing:
    # XLA drops the encoder from this program, since only heads are returned.
    made = jax.jit(
      lambda: {"heads": {name: random()["heads"][name] for name in missing}},
      out_shardings=partitioning.shardings(
        {"heads": {name: wanted[name] for name in missing}}, mesh
      ),
    )()
    heads = heads | made["heads"]
    paths = jax.tree_util.tree_leaves_with_path(made)
    report = report.with_initialised(
      [partitioning.path_of(path) for path, _ in paths],
      f"not in the weights: random, from seed {seed}",
    )
  return params | {"heads": heads}, report


def state_of(
  params: dict[str, Any],
  seed: int,
  recipe: Recipe,
  abstract: TrainState,
) -> TrainState:
  """The state before the first update; the key encoder starts as a copy.

  Args:
    params: as read_params gives them; the state takes them over as they are.
    seed: of the run.
    recipe: see state.Recipe.
    abstract: of the state, with its shardings.
  """

  def rest(params: Any, rng: jax.Array) -> TrainState:
    state = train_state.create(recipe, params, rng)
    return dataclasses.replace(state, params=None)

  shardings = jax.tree.map(
    lambda x: x.sharding, dataclasses.replace(abstract, params=None)
  )
  rng = jax.random.key_data(jax.random.key(seed))
  state = jax.jit(rest, out_shardings=shardings)(params, rng)
  placed = jax.device_put(
    params, jax.tree.map(lambda x: x.sharding, abstract.params)
  )
  return dataclasses.replace(state, params=placed)


def _check_head(where: str, name: str, given: Any, wanted: Any) -> None:
  def shapes(tree: Any) -> dict[str, list[int]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {partitioning.path_of(p): list(x.shape) for p, x in leaves}

  if shapes(given) != shapes(wanted):
    raise InputError(
      f"{where}: the head {name} has the arrays {shapes(given)}, this"
      f" configuration's {shapes(wanted)}: it is of another model"
    )
