"""What is shown of a step is what the step sees."""

import contextlib
import io
import json
import re

import gin.config
import jax
import numpy as np
import pytest
import small_corpus
import small_run

from infoxlm_jax.analysis import data_statistics, inspect_step, inspect_text
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
from infoxlm_jax.training.state import abstract, init_sharded
from tools.inspect_data import main

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
  setup = (run.model, run.objectives, options["optimizer"], 0, mesh)
  update = train_step.make_train_step(
    abstract(*setup),
    mesh,
    run.model,
    run.objectives,
    options["optimizer"],
    learning_rate=options["learning_rate"],
    momentum=options["momentum"],
  )
  state = init_sharded(run.seed, *setup)
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


VOCAB = "--gin.config.EncoderConfig.vocab_size=9"
ARGS = (
  "--gin_file=gin/quickstart.gin",
  "--gin.mlm/streams.TextStream.rows=None",
  "--gin.config.EncoderConfig.hidden_size=16",
)


@pytest.fixture
def tool():
  """Runs the tool: (exit code, output, errors)."""

  def call(*args):
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
      code = main([str(arg) for arg in args])
    return code, out.getvalue(), errors.getvalue()

  yield call
  gin.config.clear_config()


def test_the_command_shows_a_step(tool):
  data = f"--gin.DATA={small_corpus.prepared()}"
  code, text, _ = tool(*ARGS, data, "--step", 5, "--rows", 2)
  assert code == 0
  for name, first in (("mlm", 16), ("tlm", 32), ("xlco", 384)):
    assert re.search(rf"^{name}: \w+, group 0: samples {first} to", text, re.M)
  assert len(re.findall("row [01]: ", text)) == 4
  assert len(re.findall("row [01] of the query side", text)) == 2
  _, one, _ = tool(*ARGS, data, "--step", 5, "--rows", 1, "--stream", "tlm")
  part = one[one.index("tlm:") :].rstrip("\n")
  assert "mlm:" not in one and "xlco" not in one
  assert len(part) > 200 and part in text


def test_statistics(tool, tmp_path):
  folder = small_corpus.prepared()
  code, text, _ = tool(
    "--data", folder, "--statistics", "--output", tmp_path / "out"
  )
  assert code == 0
  manifest = json.loads((folder / "train" / "manifest.json").read_text())
  texts = {
    c["languages"][0]: c for c in manifest["corpora"] if len(c["languages"]) < 2
  }
  powers = {name: c["tokens"] ** 0.7 for name, c in texts.items()}
  records = sum(c["records"] for c in texts.values())
  tokens = sum(c["tokens"] for c in texts.values())
  for name, c in texts.items():
    cells = re.search(rf"^  {name} +(.*)$", text, re.M)[1].split()
    drawn = powers[name] / sum(powers.values())
    assert cells[:3] == [
      str(c["records"]), str(c["sentences"]), f"{c['tokens']:,}",
    ]  # fmt: skip
    assert float(cells[3]) == pytest.approx(
      100 * c["tokens"] / tokens, abs=0.01
    )
    assert float(cells[4]) == pytest.approx(100 * drawn, abs=0.01)
    repeats = drawn * records / c["records"]
    assert float(cells[5]) == pytest.approx(repeats, abs=0.01)
  # Each seventh row of the corpus has no French.
  dropped = texts["fr"]["dropped"]
  assert dropped and all(f"{why} {n}" in text for why, n in dropped.items())
  png = (tmp_path / "out" / data_statistics.PICTURE).read_bytes()
  assert png.startswith(b"\x89PNG")
  written = (tmp_path / "out" / data_statistics.TABLE).read_text()
  assert written in text
  code, _, error = tool(
    "--data", folder, "--statistics", "--output", tmp_path / "out"
  )
  assert code == 2 and "is not overwritten" in error


def test_data_alone_shows_records(tool):
  code, text, _ = tool("--data", small_corpus.prepared(), "--rows", 1)
  assert code == 0
  store = Store(small_corpus.prepared() / "train")
  first = next(iter(store.text_counts))
  (block,) = store.read_text(first, [0])
  words = TOKENIZER.decode(block).split()
  assert f"text {first}, record 0: {len(block)} tokens" in text
  assert " ".join(words[:4]) in text
  assert text.count("\npair ") == 1


@pytest.mark.parametrize(
  ("args", "says"),
  [
    ([], "give one of --gin_file"),
    (["--data", "nowhere"], "holds no prepared data"),
    (["--data", "nowhere", "--gin.A=1"], "unknown argument '--gin.A=1'"),
    ([*ARGS, "--step", "0"], "count from 1"),
    ([*ARGS, "--rows", "0"], "--rows 0"),
    ([*ARGS, "--output", "x"], "goes with --statistics"),
    ([*ARGS, "--gin.DATA=DATA", "--stream", "mml"], "no stream 'mml'"),
    ([*ARGS, "--gin.DATA=DATA", VOCAB], "vocab_size = 9"),
    (["--run", "nowhere"], "config.gin"),
  ],
)
def test_bad_input_is_one_line(tool, args, says):
  args = [a.replace("=DATA", f"={small_corpus.prepared()}") for a in args]
  code, _, error = tool(*args)
  assert code == 2
  assert says in error and error.startswith("error: ")


def test_another_job_has_no_steps():
  store = TinyStore()
  with pytest.raises(Exception, match="not that of a pretraining.*'groups'"):
    inspect_step.run_of({"output": "x"}, store)
