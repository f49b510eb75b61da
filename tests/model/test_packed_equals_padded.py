"""The same items packed or one a row: the same loss and gradient."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_corpus
import trees

from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.model import encoder
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.base import Context, Targets, all_losses
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.training import state as train_state

LENGTH, BATCH = 176, 8
CONTRAST = Contrast(
  layer=2,
  pooling="mean",
  mask_prob=0.0,
  negatives="queue+batch",
  directions="both",
  queue_size=16,
)
CASES = {
  "mlm": (TextStream, 4, MaskedLM("mlm"), {}),
  "tlm": (PairStream, 6, MaskedLM("tlm"), {}),
  "xlco": (ContrastStream, 6, CONTRAST, {"mixup": "adjacent"}),
}


def _targets(rows):
  """Every seventh token or so, by item and position: alike in any packing."""
  number, position = rows["segments"], rows["positions"]
  chosen = np.vectorize(lambda n, p: zlib.crc32(bytes([n, p])) % 7 == 0)
  chosen = chosen(number, position) & (number > 0)
  return rows | {"targets": np.where(chosen, rows["tokens"], -1)}


def _with_empty_rows(rows):
  """As many rows as the padded batch: one program serves both."""

  def longer(x):
    fill = np.full((BATCH - x.shape[0], LENGTH), 0, x.dtype)
    return np.concatenate([x, fill])

  return jax.tree.map(lambda x: longer(x) if x.ndim == 2 else x, rows)


@pytest.fixture(autouse=True)
def _compile_fast():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


def _loss_and_gradient(objective, model):
  """A compiled function of parameters and rows; also the number of terms."""
  encode = functools.partial(encoder.encode, config=model)
  random = np.random.default_rng(0).normal(size=(16, model.hidden_size))

  @jax.jit
  def both(params, rows):
    rows = jax.tree.map(lambda x: x[None], rows)
    drawn, counts = objective.corrupt(None, rows, model)
    context = Context()
    if isinstance(objective, Contrast):
      keys = objective.keys(objective.key_params(params), encode, drawn)
      queue = key_queue.fill(jnp.asarray(random), 8)
      targets = Targets({"keys": keys, "first": 0}, {"keys": keys})
      context = Context(memory={"o": queue}, targets={"o": targets})

    def loss(params):
      own, rows = {"o": objective}, {"o": drawn}
      return all_losses(own, params, encode, rows, model, context).sum

    return counts["terms"], *jax.value_and_grad(loss)(params)

  return both


@pytest.mark.parametrize("name", CASES)
def test_packed_equals_padded(name):
  kind, num_rows, objective, options = CASES[name]
  store = Store(small_corpus.prepared() / "train")
  streams = [
    kind(batch=BATCH, rows=rows, row_length=LENGTH, padded=padded, **options)
    for rows, padded in ((num_rows, False), (BATCH, True))
  ]
  built = [small_corpus.build(stream, store, 3, 0, 0, 1) for stream in streams]
  assert all(stats["cut_tokens"] == 0 for _, stats in built)
  packed, padded = (arrays for arrays, _ in built)
  packed = _with_empty_rows(packed)
  if name != "xlco":
    packed, padded = _targets(packed), _targets(padded)
    assert (packed["segments"].max(1) > packed["segments"].min(1)).any()
  with jax.enable_x64(True):
    model = EncoderConfig(
      vocab_size=load_tokenizer(small_corpus.TOKENIZER).vocab_size,
      num_layers=2,
      hidden_size=16,
      num_heads=2,
      ffn_size=32,
      max_positions=LENGTH,
      dtype="float64",
    )
    params = train_state.init_params(
      jax.random.key(1), model, {name: objective}
    )
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    both = _loss_and_gradient(objective, model)
    terms, loss, grads = both(params, packed)
    others, expected, theirs = both(params, padded)
    assert int(terms) == int(others) > 7
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(loss) > 1
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(theirs))
    trees.assert_close(grads, theirs, rtol=1e-6, atol=1e-6 * scale)
