"""Classification against transformers' numbers, and a job that learns."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import small_corpus
import small_model
import small_run

from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.data.labelled.examples import Examples, Ragged
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.finetuning import job
from infoxlm_jax.finetuning.evaluator import TaskEvaluator
from infoxlm_jax.finetuning.options import FineTuning
from infoxlm_jax.finetuning.predict import make_predict
from infoxlm_jax.finetuning.tasks import classification
from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.objectives.base import Context
from infoxlm_jax.objectives.classification import Classification
from infoxlm_jax.runtime import json_crc
from infoxlm_jax.runtime.metrics import read_metrics
from infoxlm_jax.runtime.signals import Stopped
from infoxlm_jax.training.options import Parallelism, WeightOptions
from infoxlm_jax.training.train_log import TrainingLog


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory):
  with small_run.compiled_once(tmp_path_factory.mktemp("compiled")):
    yield


def oracle_examples():
  numbers = oracle.load("xlmr_cls")
  real = numbers["attention_mask"] == 1
  tokens = [
    ids[mask] for ids, mask in zip(numbers["input_ids"], real, strict=True)
  ]
  return numbers, Examples(Ragged.of(tokens), numbers["labels"].astype("i4"))


def test_logits_and_loss_are_those_of_transformers():
  """Packed into rows of two; transformers has an item a row."""
  config, params, _ = load_weights(oracle.ORACLES / "xlmr_cls")
  params = jax.tree.map(jnp.asarray, params)
  numbers, examples = oracle_examples()
  rows = {
    name: np.zeros((2, 1, 40), np.int32)
    for name in ("tokens", "segments", "positions")
  }
  rows["tokens"][:] = config.pad_id
  for n, tokens in enumerate(examples.tokens):
    group, item = divmod(n, 2)
    start = len(examples.tokens[n - 1]) if item else 0
    where = (group, 0, slice(start, start + len(tokens)))
    rows["tokens"][where] = tokens
    rows["segments"][where] = item + 1
    rows["positions"][where] = np.arange(len(tokens))
  rows["labels"] = examples.labels.reshape(2, 2)
  objective = Classification(classes=3)

  def encode(params, rows, **options):
    return encoder.encode(params, rows, config, **options)

  logits = objective.scores(params, encode, rows, config)
  np.testing.assert_allclose(
    np.asarray(logits).reshape(4, 3), numbers["logits"], atol=2e-5
  )
  loss = Classification.losses(
    {"task": objective}, params, encode, {"task": rows}, config, Context()
  )
  assert loss.sum / 4 == pytest.approx(float(numbers["loss"]), abs=2e-5)
  hits = (numbers["logits"].argmax(-1) == numbers["labels"]).sum()
  assert loss.metrics["task/accuracy"] == (hits, 4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (8, 1, 1), (2, 2, 2)])
def test_predictions_on_a_mesh(shape):
  config, params, _ = load_weights(oracle.ORACLES / "xlmr_cls")
  mesh = partitioning.make_mesh(
    partitioning.MeshShape(*shape, devices=int(np.prod(shape)))
  )
  specs = partitioning.specs(params, mesh)
  placed = jax.device_put(params, partitioning.named(specs, mesh))
  predict = make_predict(Classification(classes=3), config, specs, mesh)
  numbers, examples = oracle_examples()
  counts = []
  scores = predict(placed, examples, counts.append)
  np.testing.assert_allclose(np.stack(scores), numbers["logits"], atol=2e-5)
  assert sum(counts) == 4


# A synthetic task: the colour of a sentence, in two "languages".
COLOURS = {"red": ("blood", "rose"), "blue": ("sky", "sea")}
FILLER = "the king said that he would go up to them".split()


def write(path: Path, count: int, seed: int, pairs: bool = False) -> Path:
  draw = np.random.default_rng(seed)
  lines = []
  for n in range(count):
    label = sorted(COLOURS)[n % 2]
    words = [*draw.choice(FILLER, 5), draw.choice(COLOURS[label])]
    text = " ".join(draw.permutation(words))
    lines.append("\t".join([label, text] + ([text] if pairs else [])))
  path.write_text("\n".join(lines) + "\n")
  return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("data")
  write(folder / "en.train.tsv", 96, 0)
  for n, language in enumerate(("en", "de")):
    write(folder / f"{language}.dev.tsv", 30, 10 + n)
    write(folder / f"{language}.test.tsv", 40, 20 + n)
  return folder


def with_crossed(task):
  """The test sets once more, to be measured with the chosen checkpoint."""
  crossed = {
    f"{language}-{language}": own for language, own in task.test.items()
  }
  return dataclasses.replace(task, crossed=crossed)


def run(data: Path, out: Path, dry_run: bool = False, **changes):
  model = small_model.folder()
  options = {
    "seeds": (0,), "rates": (1e-2,), "epochs": 8.0, "batch": 16,
    "warmup": 2, "evaluations": 3, "log_every": 1,
  }  # fmt: skip
  files = {
    "train": str(data / "en.train.tsv"),
    "dev": str(data / "*.dev.tsv"),
    "test": str(data / "*.test.tsv"),
  }
  for key in list(changes):
    if key in files:
      files[key] = changes.pop(key)
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    job.finetune(
      options=FineTuning(model_dir=str(out), **options | changes),
      task=lambda tokenizer, model: with_crossed(
        classification.tsv_files(tokenizer, model, max_length=32, **files)
      ),
      model=model_of(model, dropout=0.1, attention_dropout=0.1),
      weights=WeightOptions(init_from=str(model)),
      parallelism=Parallelism(groups=1, mesh=small_run.ONE_DEVICE),
      dry_run=dry_run,
    )
  return printed.getvalue()


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
  out = tmp_path_factory.mktemp("finished") / "out"
  run(data, out)
  return out


def test_a_task_is_learned(finished):
  results = json.loads((finished / "results.json").read_text())
  accuracy = results["classification"]["test"]["accuracy"]
  assert set(accuracy) == {"de", "en", "mean"}
  assert accuracy["mean"] > 0.95
  assert results["majority_class"]["en"] == 0.5
  assert results["classification"]["model_per_language"]["test"]
  assert results["classes"] == ["blue", "red"]
  # Measured while it was trained, and after its checkpoint was read again.
  again = results["classification"]["crossed"]["accuracy"]
  assert {k.partition("-")[0]: value for k, value in again.items()} == accuracy
  report = (finished / "report.md").read_text()
  assert "| mean | " in report and "![languages](figures/" in report
  assert (finished / "figures" / "languages.png").exists()
  assert (
    f"one_model,test,accuracy,de,{accuracy['de']},0.0"
    in (finished / "results.csv").read_text().splitlines()
  )


def test_a_run_that_is_killed_ends_bit_for_bit(data, finished, tmp_path):
  add = TrainingLog.add

  def interrupted(log, number, *rest):
    add(log, number, *rest)
    if number == 20:  # after the first evaluation of three
      os.kill(os.getpid(), signal.SIGTERM)

  out = tmp_path / "out"
  with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
    patch.setattr(TrainingLog, "add", interrupted)
    run(data, out)
  run(data, out)

  def metrics(folder):
    rows = read_metrics(folder / "seed_0")
    times = ("time", "train/tokens_per_second", "train/data_wait")
    return [
      {k: v for k, v in row.items() if not k.startswith(times)} for row in rows
    ]

  def scores(folder):
    keep = ("loss", "accuracy")
    return {
      (row["step"], name): value
      for row in metrics(folder)
      for name, value in row.items()
      if any(part in name for part in keep)
    }

  assert scores(out) == scores(finished)
  for name in ("classification", "chosen_steps"):
    both = [
      json.loads((f / "results.json").read_text()) for f in (out, finished)
    ]
    assert both[0][name] == both[1][name]


def test_a_model_without_pretraining_is_a_floor(
  data, finished, tmp_path, monkeypatch
):
  """MODEL gives it shape and tokenizer, no weights, and the report says so."""
  first_params = []

  def not_trained(run):
    with run.checkpoints:
      first_params.append(jax.device_get(run.state.params))
    for name in ("results.json", "metrics.jsonl"):
      shutil.copy(finished / "seed_0" / name, run.folder)

  monkeypatch.setattr(job, "train", not_trained)
  folders = tmp_path / "pretrained", tmp_path / "random"
  for folder in folders:
    random = folder.name == "random"
    run(data, folder, random_weights=random, crossed=False)
  pretrained, random = first_params
  _, stored, _ = load_weights(small_model.folder(), heads=[])
  jax.tree.map(
    np.testing.assert_array_equal, pretrained["layers"], stored["layers"]
  )
  drawn = jax.tree_util.tree_leaves_with_path(random["layers"])
  kernels = [
    (own, of_model)
    for (path, own), of_model in zip(
      drawn, jax.tree.leaves(stored["layers"]), strict=True
    )
    if path[-1].key == "kernel"
  ]
  assert len(kernels) >= 4
  for own, of_model in kernels:
    assert own.std() == pytest.approx(0.02, rel=0.1)
    assert abs(np.corrcoef(own.ravel(), of_model.ravel())[0, 1]) < 0.1
  results, reports = zip(
    *[
      (
        json.loads((folder / "results.json").read_text()),
        (folder / "report.md").read_text(),
      )
      for folder in folders
    ],
    strict=True,
  )
  model = str(small_model.folder())
  assert [own["initial_weights"] for own in results] == [model, "random"]
  assert results[1]["shape_and_tokenizer"] == model
  assert "Without pretraining" not in reports[0]
  assert f"- initial weights: {model}" in reports[0]
  assert "**Without pretraining**: this model started from random" in reports[1]
  with pytest.raises(InputError, match="holds another run: init_from was"):
    run(data, folders[0], random_weights=True, crossed=False)


def test_a_finished_job_is_not_trained_again(data, finished):
  before = (finished / "seed_0" / "metrics.jsonl").read_bytes()
  assert "finished before" in run(data, finished)
  assert (finished / "seed_0" / "metrics.jsonl").read_bytes() == before


def test_pairs_of_languages_are_measured_after_a_kill(data, finished, tmp_path):
  """It came between the last update and the measuring."""
  out = Path(shutil.copytree(finished, tmp_path / "out"))
  path = out / "seed_0" / "results.json"
  whole = json.loads(path.read_text())
  killed = json_crc.read_checked(path)
  del killed["classification"]["crossed"]
  path.write_text(json.dumps(json_crc.with_crc(killed)))
  run(data, out)
  again = json.loads(path.read_text())
  assert again["classification"] == whole["classification"]


@pytest.mark.slow
def test_the_best_of_several_rates_is_taken(data, tmp_path):
  run(data, tmp_path / "out", rates=(1e-7, 1e-2), evaluations=1)
  results = json.loads((tmp_path / "out" / "results.json").read_text())
  assert results["rate"] == 1e-2
  assert results["dev_by_rate"]["0.01"] > results["dev_by_rate"]["1e-07"]


def test_a_part_of_train_is_held_out(data, tmp_path):
  printed = run(data, tmp_path / "out", dev=None, dry_run=True)
  assert "held out of train: 10 examples" in printed
  assert "train: 86 examples in en" in printed
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("en.dev.tsv", "green\tx\n", "en.dev.tsv, row 1: the label 'green'"),
    ("en.dev.tsv", "red\tx\nred\n", r"en.dev.tsv, line 2: 1 tab-separated"),
    ("en.dev.tsv", "red\t \n", "line 1: the text is empty"),
    ("en.dev.tsv", "red\ta\tb\n", "has pairs of texts"),
    ("en.x.dev.tsv", "red\ta\n", "are both of 'en'"),
    ("no.dev.txt", "", "no.dev.txt"),
  ],
)
def test_bad_files_are_named(data, tmp_path, name, text, message):
  for file in data.glob("*.tsv"):
    shutil.copy(file, tmp_path)
  (tmp_path / name).write_text(text)
  with pytest.raises(InputError, match=message):
    run(data, tmp_path / "out", dev=str(tmp_path / "*.dev.t*"))
  assert not (tmp_path / "out").exists()


def test_impossible_options(data, tmp_path):
  for changes, message in (
    ({"seeds": ()}, "seeds"),
    ({"rates": (1e-5, 1e-5)}, "rates"),
    ({"batch": 0}, "BATCH"),
    ({"epochs": 0.0}, "epochs"),
  ):
    with pytest.raises(InputError, match=message):
      run(data, tmp_path / "out", **changes)


def test_test_sets_are_measured_when_dev_chooses_them(data, tmp_path):
  task = dataclasses.replace(
    classification.tsv_files(
      load_tokenizer(small_corpus.TOKENIZER),
      model_of(small_model.folder()),
      train=str(data / "en.train.tsv"),
      dev=str(data / "*.dev.tsv"),
      test=str(data / "*.test.tsv"),
    ),
    score=lambda own, scores: {"accuracy": float(scores)},
  )
  values = {}

  def predict(params, examples, done):
    name = next(
      (split, k)
      for split in ("dev", "test")
      for k, own in getattr(task, split).items()
      if own.examples is examples
    )
    return values.get(name, 0.0)

  class State:
    step, params = 1, None

  evaluator = TaskEvaluator(tmp_path, task, predict)

  def tested(**dev):
    """The test sets that are measured when dev is so."""
    values.update({("dev", language): value for language, value in dev.items()})
    metrics = evaluator(State, ("dev",)).metrics
    State.step += 1
    return {name.split("/")[2] for name in metrics if name.startswith("test")}

  assert tested(en=0.5, de=0.5) == {"en", "de", "mean"}
  assert tested(en=0.2, de=0.7) == {"de"}
  assert tested(en=0.1, de=0.6) == set()
  assert tested(en=0.6, de=0.7) == {"en", "de", "mean"}
  assert tested(en=0.1, de=0.7) == {"de"}  # as good as before
  State.step = 2  # back at a checkpoint: what came after it is forgotten
  assert tested(en=0.6, de=0.1) == {"en"}
