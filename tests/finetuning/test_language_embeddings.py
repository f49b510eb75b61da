"""XLM's language embeddings in fine-tuning and in prediction."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import small_corpus
import small_model
import small_run

from infoxlm_jax.checkpoint.exporters import export
from infoxlm_jax.checkpoint.exporters.model_card import About
from infoxlm_jax.checkpoint.importers.languages import languages_of
from infoxlm_jax.checkpoint.importers.load import model_of
from infoxlm_jax.data.labelled.examples import Examples, Ragged
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.finetuning import job
from infoxlm_jax.finetuning.languages import with_languages
from infoxlm_jax.finetuning.options import FineTuning
from infoxlm_jax.finetuning.predict import make_predict
from infoxlm_jax.finetuning.task import EvalSet, Task
from infoxlm_jax.finetuning.tasks import classification
from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.training.options import Parallelism, WeightOptions

LANGUAGES = ("fr", "de", "en")  # rows 0, 1, 2


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory):
  with small_run.compiled_once(tmp_path_factory.mktemp("compiled")):
    yield


@pytest.fixture(scope="module")
def xlm(tmp_path_factory) -> Path:
  """A small XLM as a Hugging Face folder, with lang2id."""
  folder = tmp_path_factory.mktemp("xlm") / "model"
  source = small_model.source(
    architecture="xlm", type_vocab_size=3, position_offset=0, ffn_size=128
  )
  export.export_transformers(source, folder, About("small"), check=False)
  state_languages(folder, {k: n for n, k in enumerate(LANGUAGES)})
  return folder


def state_languages(folder: Path, lang2id) -> None:
  config = json.loads((folder / "config.json").read_text())
  config["lang2id"] = lang2id
  (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
  """Pairs in two languages; the class is whether both texts are the same."""
  folder = tmp_path_factory.mktemp("data")
  words = "the king said that he would go up to them".split()
  for seed, name in enumerate(("en.train", "en.dev", "de.dev", "de.test")):
    draw = np.random.default_rng(seed)
    lines = []
    for n in range(24):
      first, other = (" ".join(draw.choice(words, 6)) for _ in range(2))
      lines.append(f"{n % 2}\t{first}\t{other if n % 2 else first}")
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
  return folder


def run(model: Path, data: Path, out: Path, dev="*.dev.tsv", **options):
  job.finetune(
    options=FineTuning(
      str(out),
      seeds=(0,),
      batch=8,
      max_steps=2,
      evaluations=1,
      log_every=1,
      **options,
    ),
    task=lambda tokenizer, shape: classification.tsv_files(
      tokenizer,
      shape,
      train=str(data / "en.train.tsv"),
      dev=str(data / dev),
      test=str(data / "de.test.tsv"),
      max_length=32,
    ),
    model=model_of(model),
    weights=WeightOptions(init_from=str(model)),
    parallelism=Parallelism(groups=1, mesh=small_run.ONE_DEVICE),
  )


def test_examples_have_the_language_of_their_set(
  xlm, data, tmp_path, monkeypatch
):
  runs = []
  monkeypatch.setattr(job, "train", lambda run: runs.append(run) or 1 / 0)
  with pytest.raises(ZeroDivisionError):  # all that comes before training
    run(xlm, data, tmp_path / "out")
  [ready] = runs
  with ready.checkpoints:
    stream = next(iter(ready.program.streams))
    [(batch, _)] = ready.feed.draw(ready.store, {stream: 0}, 1)
    rows = jax.device_get(batch[stream])
    real = rows["segments"] > 0
    assert real.any() and (rows["types"][real] == 2).all()
    described = json.loads(ready.model_files["model.json"])
    assert described["languages"] == list(LANGUAGES)
    params = ready.state.params
  # Prediction: German sets are read with German's row, which changes them.
  model, objective = ready.program.model, ready.program.objectives["task"]
  predict = make_predict(
    objective,
    model,
    partitioning.specs_of(params),
    ready.program.mesh,
  )
  task = with_languages(
    classification.tsv_files(
      load_tokenizer(small_corpus.TOKENIZER),
      model,
      train=str(data / "en.train.tsv"),
      test=str(data / "de.test.tsv"),
      max_length=32,
    ),
    LANGUAGES,
    model.ids.eos,
  )
  examples = task.test["de"].examples
  scores = np.stack(predict(params, examples))

  def encode(params, rows, **options):
    return encoder.encode(params, rows, model, **options)

  def direct(language: str) -> np.ndarray:
    """Scores of one example after the other, in a row of its own."""
    out = []
    for tokens in examples.tokens.take(np.arange(3)):
      rows = {"tokens": tokens, "segments": np.ones_like(tokens)}
      rows["positions"] = np.arange(len(tokens), dtype=np.int32)
      rows["types"] = np.full_like(tokens, LANGUAGES.index(language))
      rows = {name: own[None, None] for name, own in rows.items()}
      rows["labels"] = np.zeros((1, 1), np.int32)
      out.append(objective.scores(params, encode, rows, model).reshape(-1))
    return np.stack(out)

  np.testing.assert_allclose(scores[:3], direct("de"), atol=1e-5)
  assert np.abs(scores[:3] - direct("en")).max() > 1e-3


def test_the_second_text_of_a_mixed_pair_has_its_own_language():
  own = Examples(Ragged.of([[0, 7, 8, 2, 9, 2]]), np.zeros(1, np.int32))
  task = Task(
    "classification", "here", "accuracy", None, {"en": own}, {}, {}, None,
    crossed={"de-fr": EvalSet(own)},
  )  # fmt: skip
  made = with_languages(task, LANGUAGES, eos=2)
  [types] = made.crossed["de-fr"].examples.arrays["types"].take(np.arange(1))
  assert types.tolist() == [1, 1, 1, 1, 0, 0]


def test_bad_languages_are_named(xlm, data, tmp_path):
  (tmp_path / "ja.dev.tsv").write_text("0\ta\tb\n")
  with pytest.raises(InputError, match="dev set ja is in 'ja'.*has fr, de, en"):
    run(xlm, data, tmp_path / "out", dev=str(tmp_path / "ja.dev.tsv"))
  silent = Path(shutil.copytree(xlm, tmp_path / "silent"))
  state_languages(silent, None)
  with pytest.raises(InputError, match="embeddings of 3 languages.*not say"):
    run(silent, data, tmp_path / "out")
  with pytest.raises(InputError, match="not the languages of its 3"):
    run(silent, data, tmp_path / "out", language_ids=("en", "de", "fr", "el"))
  with pytest.raises(InputError, match="has no language embeddings"):
    run(small_model.folder(), data, tmp_path / "out", language_ids=("en",))
  for wrong in ({"en": 0, "de": 2}, {"en": 0, "de": 0}, ["en"]):
    state_languages(silent, wrong)
    with pytest.raises(InputError, match=r"config\.json: lang2id"):
      languages_of(silent)
  assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_it_trains_and_the_report_says_the_languages(xlm, data, tmp_path):
  run(xlm, data, tmp_path / "with")
  run(xlm, data, tmp_path / "without", language_ids=())
  reports = [
    (tmp_path / name / "report.md").read_text() for name in ("with", "without")
  ]
  assert "- language embeddings: fr, de, en" in reports[0]
  assert "language embeddings" not in reports[1]
  # The chosen model of a run says its languages itself.
  assert languages_of(tmp_path / "with" / "seed_0") == LANGUAGES
