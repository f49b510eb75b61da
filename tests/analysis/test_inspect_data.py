"""infoxlm-inspect-data shows the batch and the masks that a step uses."""

import json

import jax
import numpy as np
import pytest
import small_corpus
import small_run

from infoxlm_jax.analysis import inspect_step, inspect_text
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.partitioning import BATCH_AXES
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.special_ids import Ids
from infoxlm_jax.training import step as train_step
from infoxlm_jax.training.input_pipeline import Feed
from infoxlm_jax.training.state import Recipe, abstract, init_sharded

TOKENIZER = load_tokenizer(small_corpus.TOKENIZER)
SENTENCES = {
  "en": ["In the beginning was the Word.", "He came unto his own."],
  "de": ["Im Anfang war das Wort.", "Er kam in das Seine."],
}


class TinyStore:
  """Two pairs and two blocks, written down here."""

  folder = "tiny"
  ids = Ids(mask=TOKENIZER.mask_id, size=TOKENIZER.vocab_size)
  text_counts = {"en": 2}
  text_tokens = {"en": 20}
  pair_counts = {("en", "de"): 2}

  def read_text(self, language, indices):
    return [
      np.array([0, *TOKENIZER.encode(SENTENCES[language][i]), 2], np.int32)
      for i in indices
    ]

  def read_pairs(self, pair, indices):
    return [
      tuple(TOKENIZER.encode(SENTENCES[side][i]) for side in pair)
      for i in indices
    ]


def _run(**changes):
  options = {
    "streams": {
      "mlm": TextStream(batch=2, rows=1, row_length=32),
      "tlm": PairStream(batch=1, rows=1, row_length=14),
      "xlco": ContrastStream(
        batch=1, rows=1, row_length=32, mixup="adjacent", cross_sides=True
      ),
    },
    "objectives": {
      "mlm": MaskedLM("mlm"),
      "tlm": MaskedLM("tlm"),
      "xlco": Contrast(layer=1, mask_prob=0.3),
    },
    "model": small_run.options("unused")["model"],
    "groups": 1,
    "seed": 0,
  } | changes
  return inspect_step.Run(**options)


@pytest.mark.parametrize("name", ["mlm", "tlm", "xlco"])
def test_rows_as_text(name, expected):
  """Against files that a person has read against the sentences above.

  Whose they are, which stands where, what is masked or cut, and where
  positions begin again.
  """
  run = _run()
  samples = inspect_step.positions(run, 3)
  assert samples == {"mlm": 4, "tlm": 2, "xlco": 2}
  (seen,) = inspect_step.see(run, TinyStore(), 3, samples, name, [0])
  text = "\n".join(inspect_text.rows(seen, TOKENIZER, 1)) + "\n"
  assert text == (expected / f"inspection_{name}.txt").read_text("utf-8")


def test_a_start_that_is_left_out_is_shown():
  """The second <s> of a side, which masking left as it was."""
  stream = ContrastStream(
    batch=1,
    rows=1,
    row_length=40,
    mixup="disjoint",
    join_after_masking=True,
  )
  run = _run(streams={"xlco": stream})
  (seen,) = inspect_step.see(run, TinyStore(), 3, {"xlco": 2}, "xlco", [0])
  text = "\n".join(inspect_text.rows(seen, TOKENIZER, 1))
  left_out = [
    int((before["segments"] > 0).sum() - (after["segments"] > 0).sum())
    for before, after in zip(
      seen.before.values(), seen.after["xlco"].values(), strict=True
    )
  ]
  assert text.count("{<s>>}") == sum(left_out) == 2
  assert "disjoint partner en-de record 1" in text
  # Both sentences of a side, decoded.
  assert text.count("        en: ") == text.count("        de: ") == 2


@pytest.fixture
def _compile_fast():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("_compile_fast")
def test_masks_are_those_of_the_jitted_step():
  """Update 4 on two devices; each tells what went into its encoder."""
  heard = {}

  class Telling(MaskedLM):
    def corrupt(self, keys_G, rows, model):
      out, counts = super().corrupt(keys_G, rows, model)
      jax.debug.callback(
        lambda device, tokens: heard.update({int(device): tokens}),
        jax.lax.axis_index(BATCH_AXES),
        out["tokens"],
      )
      return out, counts

  store = Store(small_corpus.prepared() / "train")
  options = small_run.options("unused")
  run = inspect_step.Run(
    {"mlm": TextStream(batch=4, rows=8, row_length=72)},
    {"mlm": Telling("mlm")},
    options["model"],
    4,
    11,
  )
  mesh = partitioning.make_mesh(partitioning.MeshShape(devices=2))
  optimizer = options["update"].optimizer
  recipe = Recipe(run.model, run.objectives, optimizer, {"mlm": 4})
  update = train_step.make_train_step(
    recipe,
    abstract(recipe, mesh),
    mesh,
    learning_rate=options["update"].learning_rate,
  )
  state = init_sharded(recipe, run.seed, mesh)
  feed = Feed(run.streams, mesh, run.groups, run.seed)
  for batch, _ in feed.draw(store, feed.start(), 4):
    state, _ = update(state, batch)
  jax.effects_barrier()
  trained_on = np.concatenate([heard[0], heard[1]])
  assert trained_on.shape == (4, 2, 72)
  quiet = run._replace(objectives={"mlm": MaskedLM("mlm")})
  samples = inspect_step.positions(quiet, 4)
  seen = inspect_step.see(quiet, store, 4, samples, "mlm", range(4))
  shown = np.stack([s.after["mlm"][""]["tokens"] for s in seen])
  np.testing.assert_array_equal(shown, trained_on)
  assert (shown == TOKENIZER.mask_id).any()


def test_positions_of_a_run_that_was_resumed(tmp_path):
  """The newest checkpoint before the update knows what was drawn."""
  for update, drawn in ((10, 40), (20, 60)):
    files = tmp_path / "checkpoints" / str(update) / "files"
    files.mkdir(parents=True)
    samples = {"mlm": drawn, "tlm": drawn, "xlco": drawn}
    (files / "position.json").write_text(json.dumps({"samples": samples}))
  (tmp_path / "checkpoints" / "30.orbax-checkpoint-tmp").mkdir()
  run = _run()

  def drawn(update, folder=tmp_path):
    return inspect_step.positions(run, update, folder)["mlm"]

  assert drawn(10) == 18  # none before it
  assert drawn(11) == 40
  assert drawn(20) == 40 + 2 * 9
  assert drawn(21) == 60
  assert drawn(31) == 80
  assert drawn(31, None) == 60


def test_another_job_has_no_steps():
  store = TinyStore()
  with pytest.raises(Exception, match="pretraining.*'parallelism'"):
    inspect_step.run_of({"output": "x"}, store)
