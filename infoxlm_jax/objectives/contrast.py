"""XlCo: a sentence must find its translation among many others.

The query side of a pair goes through the trained encoder, the key side
through its moving average; both stop at `layer`. Negatives are the newest K
keys of earlier updates, held in a queue, and, if asked, the other keys of
this batch.

Chi et al., NAACL 2021, "Cross-lingual Contrastive Learning"; where the released
code (microsoft/unilm, folder infoxlm) differs, the defaults are the code's.

Letters: G groups, n items of a group, N items of all local groups, R rows of a
group, T tokens, D vector size.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from infoxlm_jax.errors import InputError, check_choice
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.model.flops import encode_flops
from infoxlm_jax.model.pooling import (
  POOLINGS,
  framing,
  members,
  pool,
  unit,
)
from infoxlm_jax.objectives import contrast_metrics, key_queue, masking
from infoxlm_jax.objectives.base import (
  Context,
  Cost,
  Encode,
  LossSum,
  Objective,
  Rows,
  Sums,
  Targets,
  Tree,
  Unshard,
  map_microbatches,
)
from infoxlm_jax.objectives.identity import added_option
from infoxlm_jax.objectives.info_nce import info_nce, sharded_logsumexp
from infoxlm_jax.objectives.key_queue import Queue
from infoxlm_jax.objectives.moving_average import move_average

_NEGATIVES = ("queue", "queue+batch", "batch")


@struct.dataclass
class ContrastState:
  """The key encoder and the keys of earlier updates."""

  key_params: Tree  # the parameters that a key depends on, float32
  queue: Queue


@dataclasses.dataclass(frozen=True)
class Contrast(Objective):
  """InfoNCE between the two sides of translation pairs.

  Defaults are the released code's, which differ from the paper's equation in
  having a temperature and a projection.

  Attributes:
    layer: after which layer the sentence vector is read (base 8).
    pooling: "first" (the item's <s>), "mean" (tokens other than <s> </s>) or
      "mean_all" (all its tokens).
    projection: multiply by a D x D matrix without bias, N(0, .02).
    normalize: L2-normalise queries and keys.
    temperature: divides the inner products.
    mask_prob: share of tokens masked on both sides before encoding.
    mask_specials: whether <s> and </s> may be masked.
    negatives: "queue", "queue+batch" or "batch".
    queue_size: K. Needed even with "batch", for the health metrics.
    queue_dtype: of the keys in the queue; "bfloat16" halves its memory.
    directions: "one": the query side looks for the key side. "both": each
      side of an item looks for the other (twice the encoding); the queue
      still takes the key side's keys only.
    stream: which stream of the batch it reads.
    weight: factor of the loss (lambda).
    start_step: updates before it counts; until then the key encoder is kept a
      copy of the encoder.
    momentum: of the key encoder: a number, or a function of the number of
      updates done (training/schedules.py).
    push_per_microbatch: let each microbatch's keys be negatives of the next
      (the released code) instead of pushing all after the update.
    head: name of the projection's parameters; objectives of one name share
      them.
    random_mask: let random replacement draw <mask> (the released code).
    push_skipped: let the keys of a skipped update enter the queue (the
      released code), where they are finite.
    sync_last_five: what happens before `start_step` in the released code: the
      very first update has the contrast, and the key encoder becomes a copy in
      the last five updates only.
    key_rounding: "float32", or "float16": the key parameters are rounded to
      it after every average, as in the released code under --fp16.
  """

  layer: int = 8
  pooling: str = "first"
  projection: bool = True
  normalize: bool = False
  temperature: float = 0.25
  mask_prob: float = 0.15
  mask_specials: bool = True
  negatives: str = "queue"
  queue_size: int = 131072
  queue_dtype: str = "float32"
  directions: str = "one"
  stream: str = "xlco"
  weight: float = 1.0
  start_step: int = 0
  # Not part of a run's identity: these two may change on the way.
  momentum: Callable[[Any], Any] | float = dataclasses.field(
    default=0.9999, repr=False
  )
  push_per_microbatch: bool = dataclasses.field(default=False, repr=False)
  head: str = added_option("contrast")
  random_mask: bool = dataclasses.field(default=False, repr=False)
  push_skipped: bool = dataclasses.field(default=False, repr=False)
  sync_last_five: bool = dataclasses.field(default=False, repr=False)
  key_rounding: str = added_option("float32")

  resizable = ("queue/keys",)

  @property
  def encoded(self) -> tuple[str, ...]:
    """The sides that look for the other one, by the trained encoder."""
    return ("query", "key") if self.directions == "both" else ("query",)

  def check(self, name: str, model: EncoderConfig) -> None:
    if self.queue_size < 1:
      raise InputError(
        f"objective {name!r}: queue_size = {self.queue_size}; the queue needs"
        " at least one key (negatives = 'batch' leaves it out of the loss)"
      )
    if not 1 <= self.layer <= model.num_layers:
      raise InputError(
        f"objective {name!r}: layer = {self.layer}; the model has layers 1 to"
        f" {model.num_layers}"
      )
    if self.temperature <= 0:
      raise InputError(f"objective {name!r}: temperature must be above 0")
    for option, known in (
      ("pooling", POOLINGS),
      ("negatives", _NEGATIVES),
      ("directions", ("one", "both")),
      ("key_rounding", ("float32", "float16")),
    ):
      where = f"objective {name!r}: {option}"
      check_choice(where, getattr(self, option), known)

  def init(self, key: jax.Array, model: EncoderConfig) -> dict[str, Any]:
    if not self.projection:
      return {}
    shape = (model.hidden_size, model.hidden_size)
    return {self.head: {"projection": 0.02 * jax.random.normal(key, shape)}}

  def init_state(
    self, params: Tree, batch: int, microbatches: int
  ) -> ContrastState:
    """The key encoder starts as a copy, the queue empty."""
    keys = batch // microbatches if self.push_per_microbatch else batch
    dim = params["embed"]["token"].shape[1]
    return ContrastState(
      jax.tree.map(jnp.copy, self.key_params(params)),
      key_queue.init(self.queue_size, keys, dim, self.queue_dtype),
    )

  def resize_state(
    self, state: ContrastState, like: ContrastState
  ) -> ContrastState:
    """The newest keys in slots of another batch size."""
    batch = like.queue.keys.shape[1]
    queue = key_queue.reslot(state.queue, self.queue_size, batch)
    return dataclasses.replace(state, queue=queue)

  def key_params(self, params: Tree) -> dict[str, Any]:
    """The part of the parameters that a key depends on."""
    part = {
      "embed": params["embed"],
      "layers": jax.tree.map(lambda x: x[: self.layer], params["layers"]),
      "heads": {},
    }
    if self.projection:
      part["heads"] = {self.head: params["heads"][self.head]}
    return part

  def is_finite(self, updates: jax.Array) -> jax.Array:
    return jnp.isfinite(self._momentum(updates))

  def counts_at(self, updates: jax.Array) -> jax.Array:
    """See Objective and `sync_last_five`."""
    late = super().counts_at(updates)
    return late | (updates == 0) if self.sync_last_five else late

  def corrupt(
    self, keys_G: jax.Array, rows: Rows, model: EncoderConfig
  ) -> tuple[Rows, dict[str, jax.Array]]:
    """Masks both sides independently; adds what pooling needs.

    rows: {"query": rows, "key": rows, "items": [G, n]}; the n-th item of a
    group has segment n + 1 on both sides. Of "items" (the languages of each)
    only the shape is used: a group's segments do not tell a static shape.
    Where a side has "starts", masks are drawn for each sentence, and sentences
    are joined afterwards: see ContrastStream.join_after_masking.
    """
    sides = {}
    for i, side in enumerate(("query", "key")):
      side_rows = dict(rows[side])
      tokens, starts = side_rows["tokens"], side_rows.pop("starts", None)
      # Pooling goes by what a token is, not by what masking made of it.
      side_rows["framing"] = framing(tokens, model.ids)
      if self.mask_prob:
        keys = jax.vmap(
          lambda key, i=i: jax.random.split(jax.random.fold_in(key, i))
        )(keys_G)
        whole = side_rows
        if starts is not None:
          whole = side_rows | {
            "segments": masking.sentence_segments(whole["segments"], starts)
          }
        drawn = masking.select(
          keys[:, 0],
          whole,
          self.mask_prob,
          () if self.mask_specials else model.ids.special,
        )
        side_rows["tokens"] = masking.corrupt(
          keys[:, 1], tokens, drawn, model.ids, self.random_mask
        )
      if starts is not None:
        side_rows |= masking.join_sentences(side_rows, starts, model.ids)
      sides[side] = side_rows
    sides["items"] = rows["items"]
    terms = rows["items"].size * len(self.encoded)
    return sides, {"terms": jnp.asarray(terms)}

  def cost(
    self, model: EncoderConfig, stream: Any, devices: int, microbatches: int
  ) -> Cost:
    read = None
    if self.pooling == "first":
      read = min(math.ceil(stream.batch / stream.rows), stream.row_length)
    side = encode_flops(model, stream.rows, stream.row_length, self.layer, read)
    # Keys forward; queries forward and backward; logits the same.
    keys = self.queue_size + stream.batch
    logits = 2 * stream.batch * keys * model.hidden_size
    flops = len(self.encoded) * (4 * side + 3 * logits)
    # The queries of all devices meet each device's part of the keys.
    queries = -(-stream.batch // microbatches)
    local = -(-self.queue_size // devices) + stream.batch // devices
    return Cost(flops, self.layer, queries * local, False)

  def targets(
    self,
    params: Tree,
    state: ContrastState,
    specs: Any,
    rows: Rows,
    unshard: Unshard,
    axes: tuple[str, ...],
  ) -> Targets:
    """Keys of the whole update by the key encoder.

    Returns:
      each: "keys" [M, directions, n, D] of this device, in its items' order,
        and "first" [M], the index of their first in the update.
      shared: "keys" [directions, B, D] of all devices.
    """
    del params
    key_params, encode = unshard(state.key_params, specs["state"].key_params)
    keys = map_microbatches(
      lambda micro: self.keys(key_params, encode, micro), rows
    )
    microbatches, directions, items, dim = keys.shape
    flat = jnp.swapaxes(keys, 0, 1).reshape(directions, -1, dim)
    batch_keys, first = flat, jnp.zeros((), jnp.int32)
    if axes:
      batch_keys = jax.lax.all_gather(flat, axes, axis=1, tiled=True)
      first = jax.lax.axis_index(axes) * flat.shape[1]
    first += items * jnp.arange(microbatches)
    return Targets({"keys": keys, "first": first}, {"keys": batch_keys})

  def keys(self, key_params: Tree, encode: Encode, rows: Rows) -> jax.Array:
    """Keys of all items [directions, N, D], without gradient."""
    sides = ("key", "query")[: len(self.encoded)]
    vectors = [self._vectors(key_params, encode, rows, s) for s in sides]
    return jax.lax.stop_gradient(jnp.stack(vectors))

  def memory(self, state: ContrastState) -> Queue:
    return state.queue

  def after_microbatch(self, memory: Queue, targets: Targets | None) -> Queue:
    if not self.push_per_microbatch:
      return memory
    assert targets is not None
    return key_queue.push(memory, targets.each["keys"][0])

  def collect(self, targets: Targets | None) -> jax.Array:
    """The key side's keys, one slot of the queue for each push."""
    assert targets is not None
    keys = targets.each["keys"][:, 0]
    if self.push_per_microbatch:
      return keys
    return keys.reshape(1, -1, keys.shape[-1])

  @staticmethod
  def losses(
    objectives: Mapping[str, "Contrast"],
    params: Tree,
    encode: Encode,
    rows: Mapping[str, Rows],
    model: EncoderConfig,
    context: Context,
  ) -> LossSum:
    """Sum over items of -log p(own key | own key and the negatives)."""
    del model
    total, metrics = jnp.zeros(()), Sums()
    for name, own in objectives.items():
      for direction, side in enumerate(own.encoded):
        q_ND = own._vectors(params, encode, rows[name], side)
        loss, measures = own.loss_of(
          q_ND,
          direction,
          context.targets[name],
          context.memory[name],
          context.axes,
        )
        total += context.factor(name) * loss
        for metric, pair in measures.items():
          metrics[f"{name}/{metric}"] = _add(
            metrics.get(f"{name}/{metric}"), pair
          )
    return LossSum(total, metrics)

  def loss_of(
    self,
    q_ND: jax.Array,
    direction: int,
    targets: Targets,
    queue: Queue,
    axes: tuple[str, ...] = (),
  ) -> tuple[jax.Array, Sums]:
    """The sum over queries of one direction, and their metrics."""
    k_ND = targets.each["keys"][direction]
    batch_BD = targets.shared["keys"][direction]
    own_N = targets.each["first"] + jnp.arange(q_ND.shape[0])
    is_own_NB = own_N[:, None] == jnp.arange(batch_BD.shape[0])
    others_N = top_N = None
    if "queue" in self.negatives:
      keys_MD = queue.keys.reshape(-1, q_ND.shape[-1])
      newest_M = key_queue.is_newest_on(queue, self.queue_size, axes).reshape(
        -1
      )
      others_N, top_N = sharded_logsumexp(
        q_ND, keys_MD, newest_M, self.temperature, axes
      )
    count = batch_BD.shape[0] if "batch" in self.negatives else 0
    loss_N = info_nce(
      q_ND,
      k_ND,
      batch_BD[:count],
      ~is_own_NB[:, :count],
      self.temperature,
      others_N,
    )
    loss = jnp.sum(loss_N)
    measures = contrast_metrics.measure(
      q_ND, k_ND, batch_BD, is_own_NB, queue, self.temperature, axes
    )
    items = jnp.asarray(q_ND.shape[0], jnp.float32)
    if top_N is not None:
      # As the released code counts it: a tie is right.
      own_logit_N = jnp.sum(q_ND * k_ND, axis=-1) / self.temperature
      hits = jnp.sum(jax.lax.stop_gradient(own_logit_N) >= top_N)
      measures["accuracy_queue"] = (hits.astype(jnp.float32), items)
    return loss, {"loss": (loss, items), **measures}

  def update_state(
    self,
    state: ContrastState,
    collected: jax.Array,
    params: Tree,
    updates: jax.Array,
    accept: jax.Array,
  ) -> tuple[ContrastState, dict[str, jax.Array]]:
    """Moves the key encoder towards the encoder; pushes the update's keys.

    The metric "momentum" is 0 before `start_step`, also in those updates in
    which `sync_last_five` leaves the keys alone: so the released code logs it.
    """
    m = self._momentum(updates)
    moves = accept
    if self.sync_last_five:
      moves = accept & (updates + 5 >= self.start_step)
    key_params = move_average(
      state.key_params, self.key_params(params), jnp.where(moves, m, 1.0)
    )
    if self.key_rounding == "float16":
      key_params = jax.tree.map(
        lambda new, old: jnp.where(accept, _as_float16(new), old),
        key_params,
        state.key_params,
      )
    queue = state.queue
    for keys in collected:
      # A key that is not finite would spoil every loss that meets it.
      fit = jnp.isfinite(keys).all() if self.push_skipped else accept
      queue = key_queue.push(queue, keys, fit)
    return ContrastState(key_params, queue), {"momentum": m}

  def fill_batches(self, batch: int) -> int:
    return -(-self.queue_size // batch)

  def fill_state(
    self, state: ContrastState, collected: jax.Array
  ) -> ContrastState:
    queue = state.queue
    for keys in collected.reshape(-1, *queue.keys.shape[1:]):
      queue = key_queue.push(queue, keys)
    return dataclasses.replace(state, queue=queue)

  def _momentum(self, updates: jax.Array) -> jax.Array:
    """Of the update that makes it so many."""
    momentum = self.momentum
    m = momentum(updates) if callable(momentum) else jnp.float32(momentum)
    return jnp.where(updates >= self.start_step, m, 0.0)

  def _vectors(
    self, params: Tree, encode: Encode, rows: Rows, side: str
  ) -> jax.Array:
    own, num_items = rows[side], rows["items"].shape[-1]
    if self.pooling == "first":
      # The last layer need not compute what nobody reads.
      starts = (own["positions"] == 0) & (own["segments"] > 0)
      slots = masking.slots(starts, min(num_items, starts.shape[-1]))
      hidden = encode(params, own, num_layers=self.layer, read=slots.place)
      own = {
        "segments": jnp.where(
          slots.valid,
          jnp.take_along_axis(own["segments"], slots.place, axis=-1),
          0,
        ),
        "positions": jnp.zeros_like(slots.place),
      }
    else:
      hidden = encode(params, own, num_layers=self.layer)
    z = pool(hidden, members(own, num_items, self.pooling))
    z = z.reshape(-1, z.shape[-1])
    if self.projection:
      z = z @ params["heads"][self.head]["projection"]
    return unit(z) if self.normalize else z


def describe(objectives: Mapping[str, Objective]) -> dict[str, Any] | None:
  """Name and options of the first contrast, for model.json; None: none."""
  for name, own in objectives.items():
    if isinstance(own, Contrast):
      fields = [f.name for f in dataclasses.fields(own) if f.repr]
      return {"name": name} | {field: getattr(own, field) for field in fields}
  return None


def _as_float16(x: jax.Array) -> jax.Array:
  # XLA may leave out a cast there and back, but not across a barrier.
  # reduce_precision would flush what is subnormal in float16 to zero.
  half = jax.lax.optimization_barrier(x.astype(jnp.float16))
  return half.astype(x.dtype)


def _add(a: Any, b: Any) -> Any:
  return b if a is None else jax.tree.map(jnp.add, a, b)
