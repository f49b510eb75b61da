"""The loop around the step: exact resume, refusals, and what is left behind."""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import small_corpus
import small_run
from small_run import STEPS, options

from infoxlm_jax.checkpoint import checksums
from infoxlm_jax.data import streams
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.evaluator import Evaluation, Evaluator
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.identity import comparable, identity
from infoxlm_jax.runtime import run_dir
from infoxlm_jax.runtime.metrics import read_metrics
from infoxlm_jax.runtime.signals import EXIT_TERMINATED, Stopped
from infoxlm_jax.training import pretrain, program
from infoxlm_jax.training import run as run_module
from infoxlm_jax.training.bad_updates import BadUpdates, Diverged, UpdateWatch
from infoxlm_jax.training.train_log import TrainingLog


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory):
  with small_run.compiled_once(tmp_path_factory.mktemp("compiled")):
    yield


def run(folder: Path, **changes) -> str:
  """What the run prints."""
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
    pretrain.pretrain(**options(folder, **changes))
  return printed.getvalue()


def run_until(folder: Path, update: int, **changes) -> int:
  """A run that gets SIGTERM in the middle of an update; its exit code.

  It says at which update it was saved.
  """
  add = TrainingLog.add

  def interrupted(log, number, *rest):
    add(log, number, *rest)
    if number == update:
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped) as stop:
    patch.setattr(TrainingLog, "add", interrupted)
    with contextlib.redirect_stderr(io.StringIO()) as printed:
      pretrain.pretrain(**options(folder, **changes))
  assert f"saved at update {update}; the same command" in printed.getvalue()
  return stop.value.code


def stored(folder: Path, step: int):
  """(arrays, position) of a checkpoint, read by orbax alone."""
  place = folder / "checkpoints" / str(step)
  with ocp.StandardCheckpointer() as reader:
    arrays = reader.restore(place / "state")
  position = json.loads((place / "files" / "position.json").read_text())
  for of_the_start in ("seconds", "metric_lines"):  # evaluations have lines
    position.pop(of_the_start)
  return arrays, position


def assert_same_bits(arrays, wanted, without: tuple[str, ...] = ()) -> None:
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(arrays),
    jax.tree_util.tree_leaves_with_path(wanted),
    strict=True,
  )
  for (path, a), (_, b) in pairs:
    if path[0].key not in without:
      assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path


def told(folder: Path, prefix: str = "train/") -> dict[int, dict]:
  """{update: its numbers} of metrics.jsonl, without those of the clock."""
  clock = ("seconds", "tokens_per_second", "wait_share")
  lines: dict[int, dict] = {}
  for row in read_metrics(folder):
    numbers = {
      name: value
      for name, value in row.items()
      if name.startswith(prefix) and not any(c in name for c in clock)
    }
    if numbers:
      assert row["step"] not in lines, f"{row['step']} is there twice"
      lines[row["step"]] = numbers
  return lines


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Path, str, Evaluation]:
  """20 updates in one go, what was printed, and the last evaluation."""
  folder = tmp_path_factory.mktemp("whole") / "run"
  draw, report, ends = Evaluator.draw, Evaluator.report, []

  def recorded(evaluator, number, now):
    draw(evaluator, number, now)
    pictures = (folder / "figures").iterdir()
    DRAWN[number] = {path.name: path.stat().st_mtime_ns for path in pictures}

  def kept(evaluator, facts, start, end):
    ends.append(end)
    report(evaluator, facts, start, end)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Evaluator, "draw", recorded)
    patch.setattr(Evaluator, "report", kept)
    said = run(folder, eval_every=10)
  return folder, said, ends[0]


@pytest.fixture(scope="module")
def whole(measured) -> tuple[Path, str]:
  """The run of `measured`. Nobody writes here."""
  return measured[:2]


# Pictures of the run above at its evaluations: {update: {name: time}}.
DRAWN: dict[int, dict[str, int]] = {}


def test_pictures_are_drawn_while_the_run_goes(whole):
  assert list(DRAWN) == [10]
  assert set(DRAWN[10]) == {
    "contrast_health.png",
    "losses.png",
    "perplexity.png",
    "retrieval.png",
    "sentences.png",
    "similarity.png",
  }
  # And once more at the end.
  for name, before in DRAWN[10].items():
    assert (whole[0] / "figures" / name).stat().st_mtime_ns > before


@pytest.fixture(scope="module")
def at_seven(tmp_path_factory) -> Path:
  """A run that got SIGTERM in update 7. Nobody writes here."""
  folder = tmp_path_factory.mktemp("part") / "run"
  assert run_until(folder, 7) == EXIT_TERMINATED
  return folder


@pytest.fixture
def part(at_seven, tmp_path) -> Path:
  return Path(shutil.copytree(at_seven, tmp_path / "run"))


def test_interrupted_twice_is_the_same_bit_for_bit(whole, part):
  folder, _ = whole
  assert sorted(os.listdir(part / "checkpoints")) == ["7"]
  assert run_until(part, 12) == EXIT_TERMINATED
  said = run(part)
  assert "going on after update 12" in said
  arrays, position = stored(part, STEPS)
  wanted, wanted_position = stored(folder, STEPS)
  assert set(wanted) == {
    "step",
    "params",
    "objective_state",
    "opt_state",
    "rng",
  }
  assert_same_bits(arrays, wanted)
  assert position == wanted_position
  assert position["samples"] == {"mlm": 4 * STEPS, "xlco": 8 * STEPS}
  # Each update once, with the same losses: the same data in the same order.
  assert list(told(folder)) == list(range(1, STEPS + 1))
  assert told(part) == told(folder)
  # Of 20 keys in slots of 8: filled before update 1, then pushed 20 times.
  queue = arrays["objective_state"]["xlco"]["queue"]
  assert queue["keys"].shape == (3, 8, 16)
  assert queue["pushes"] == 3 + STEPS


def test_updates_change_what_they_should(whole, at_seven):
  """The comparison above would not see a run that stands still."""
  early, _ = stored(at_seven, 7)
  late, _ = stored(whole[0], STEPS)
  early |= early["objective_state"]["xlco"]
  late |= late["objective_state"]["xlco"]
  for part in ("params", "key_params", "opt_state", "queue"):
    pairs = zip(
      jax.tree.leaves(early[part]), jax.tree.leaves(late[part]), strict=True
    )
    assert any(not np.array_equal(a, b) for a, b in pairs), part
  assert np.array_equal(early["rng"], late["rng"])


def test_the_first_evaluation_is_against_a_full_queue(whole):
  """Vectors that are nearly alike choose among 21 keys: ln 21, and not 0."""
  measured = told(whole[0], "dev/")
  assert list(measured) == [0, 10, STEPS]
  for update in (0, 10):
    loss = measured[update]["dev/xlco/loss"]
    assert loss == pytest.approx(np.log(21), rel=0.02), update


def test_finished_run_leaves_its_files(whole):
  folder, said = whole
  names = {p.name for p in folder.iterdir()}
  assert names >= {
    "checkpoints",
    "environment.json",
    "figures",
    "identity.json",
    "metrics.jsonl",
    "report.html",
    "report.md",
    "results.json",
    "tensorboard",
  }
  results = json.loads((folder / "results.json").read_text())
  assert results["finished"] and results["steps"] == STEPS
  tokens = sum(1 for _ in told(folder)) and told(folder)[STEPS]["train/tokens"]
  assert results["tokens"] == tokens > 0
  test = results["retrieval"]["test"]
  for direction in ("en_to_xx", "xx_to_en"):
    assert 0 <= test[direction]["mean"] <= 1
  model = json.loads(
    (folder / "checkpoints" / "20" / "files" / "model.json").read_text()
  )
  assert model["encoder"]["hidden_size"] == 16
  assert set(model["special_ids"]) == {"bos", "pad", "eos", "unk", "mask"}
  assert "Retrieval on test" in said


def test_finished_run_says_so_and_computes_nothing(whole, monkeypatch):
  folder, _ = whole
  before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}

  def never(*args, **keywords):
    raise AssertionError("computed again")

  monkeypatch.setattr(program.step, "make_train_step", never)
  monkeypatch.setattr(run_module, "Checkpoints", never)
  said = run(folder)
  assert "finished after 20 updates" in said and "Retrieval on test" in said
  assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_dev_measures_are_in_the_metrics(measured):
  folder, said, end = measured
  assert "perplexity of 6 held-out items of each of de, en, fr, ja: 6" in said
  assert " (held-out text " in said
  rows = told(folder, "dev/")
  assert sorted(rows) == [0, 10, 20]
  wanted = {"mean", *small_corpus.LANGUAGES}
  for row in rows.values():
    perplexity = {
      name.rpartition("/")[2]: value
      for name, value in row.items()
      if name.startswith("dev/mlm/perplexity/")
    }
    assert set(perplexity) == wanted
    # Every key would look right in an empty queue.
    assert 0 <= row["dev/xlco/accuracy_queue"] < 1
  results = json.loads((folder / "results.json").read_text())
  assert results["perplexity"] == {"mlm": perplexity}
  # Retrieval by layer, one sentence after the other.
  scored = end.scores["dev"]
  for (place, pooling), layer in itertools.product(
    enumerate(("mean", "first")), range(3)
  ):
    rates = [
      brute_force(scored, language, layer, place)
      for language in ("de", "fr", "ja")
    ]
    name = f"dev/retrieval_by_layer/{pooling}/{layer}"
    assert rows[20][name] == pytest.approx(np.mean(rates)), name


def brute_force(scored, language: str, layer: int, place: int) -> float:
  """Mean of both directions between English and a language."""
  at = {
    name: {
      row: scored.vectors[name][layer, place, n]
      for n, row in enumerate(scored.rows[name].tolist())
    }
    for name in ("en", language)
  }
  rates = []
  common = sorted(set(at["en"]) & set(at[language]))
  for source, target in (("en", language), (language, "en")):
    hits = 0
    for row in common:
      cosines = {
        other: np.dot(at[source][row], at[target][other])
        / np.linalg.norm(at[source][row])
        / np.linalg.norm(at[target][other])
        for other in common
      }
      own = cosines.pop(row)
      hits += own > max(cosines.values()) + 2e-6  # a tie is wrong
    rates.append(hits / len(common))
  return float(np.mean(rates))


def test_the_best_checkpoint_is_chosen_by_a_named_measure(measured, tmp_path):
  """The highest perplexity is not that of the newest, nor the default."""
  run(
    tmp_path / "run",
    steps=8,
    eval_every=2,
    save_every=2,
    keep_latest=1,
    best_metric="dev/mlm/perplexity/fr",
  )
  rows = told(tmp_path / "run", "dev/mlm/perplexity/fr")
  saved = {step: next(iter(rows[step].values())) for step in (2, 4, 6)}
  best = max(saved, key=saved.__getitem__)
  assert best != 6
  kept = os.listdir(tmp_path / "run" / "checkpoints")
  assert sorted(kept) == [str(best), "8"]
  with pytest.raises(
    InputError, match="did you mean 'dev/mlm/perplexity/"
  ) as e:
    measured[2].metric("dev/mlm/perplexity/xx")
  assert "dev/retrieval_by_layer/mean/2" in str(e.value)


def test_collapse_is_said(whole):
  """The `<s>` of a fresh encoder is nearly constant."""
  folder, said = whole
  assert "update 10: dev:" in said
  assert "warning: " in said
  assert "COLLAPSED" in (folder / "report.md").read_text()


def test_killed_before_the_report(whole, part, tmp_path):
  """Only the report is missing: no update is done again."""
  folder = Path(shutil.copytree(whole[0], tmp_path / "killed"))
  (folder / "results.json").unlink()
  said = run(folder)
  assert "going on after update 20" in said
  old = json.loads((whole[0] / "results.json").read_text())
  new = json.loads((folder / "results.json").read_text())
  assert new["retrieval"] == old["retrieval"]
  assert new["tokens"] == old["tokens"]
  assert told(folder) == told(whole[0])


def test_not_finite_loss(whole, part):
  objectives = dict(options(part)["objectives"])
  objectives["mlm"] = dataclasses.replace(
    objectives["mlm"], weight=float("nan")
  )
  with pytest.raises(Diverged, match=r"update 8: loss nan.*not applied"):
    run(part, objectives=objectives)
  assert os.listdir(part / "checkpoints") == ["7"]
  row = read_metrics(part)[-1]
  assert row["step"] == 8 and row["non_finite"]["train/loss"] == "nan"
  # Where some are allowed, they change nothing but the count and the data.
  other = Path(shutil.copytree(part, part.parent / "other"))
  run(other, objectives=objectives, steps=9, bad_updates_allowed=2)
  arrays, position = stored(other, 9)
  wanted, before = stored(part, 7)
  assert arrays["step"] == 9
  assert_same_bits(arrays, wanted, without=("step",))
  assert position["samples"]["mlm"] == before["samples"]["mlm"] + 2 * 4
  # And the run that stopped goes on as if nothing had been.
  run(part)
  assert_same_bits(stored(part, STEPS)[0], stored(whole[0], STEPS)[0])
  assert told(part) == told(whole[0])


def failing_at(number: int, times: int):
  """UpdateWatch.add that finds update `number` bad so many times."""
  left = [times]

  def add(watch, at, **measures):
    if at == number and left[0]:
      left[0] -= 1
      raise BadUpdates(at, f"update {at}: bad.")

  return add


@pytest.mark.slow
def test_back_to_the_last_checkpoint_and_past_the_data(
  part, tmp_path, monkeypatch, caplog
):
  """As a run that is started at the checkpoint with the position moved."""
  other = Path(shutil.copytree(part, tmp_path / "other"))
  monkeypatch.setattr(UpdateWatch, "add", failing_at(9, 1))
  run(part, steps=10)
  assert "Going back to checkpoint 7" in caplog.text
  arrays, position = stored(part, 10)
  # Update 9 is read when 10 has begun: 3 more updates of data than of steps.
  assert position["samples"] == {"mlm": 4 * 13, "xlco": 8 * 13}
  assert list(told(part)) == list(range(1, 11))
  files = other / "checkpoints" / "7" / "files"
  moved = json.loads((files / "position.json").read_text())
  moved["samples"] = {"mlm": 4 * 10, "xlco": 8 * 10}
  (files / "position.json").write_text(json.dumps(moved))
  sums = json.loads((files / "checksums.json").read_text())
  content = (files / "position.json").read_bytes()
  sums["files"]["position.json"] = hashlib.sha256(content).hexdigest()
  del sums["sha256"]
  (files / "checksums.json").write_text(json.dumps(sums))
  monkeypatch.undo()
  run(other, steps=10)
  wanted, wanted_position = stored(other, 10)
  assert_same_bits(arrays, wanted)
  assert position == wanted_position


@pytest.mark.slow
def test_bad_again_after_going_back_stops(part, monkeypatch):
  monkeypatch.setattr(UpdateWatch, "add", failing_at(9, 2))
  with pytest.raises(Diverged, match="update 9: bad. The run had gone back"):
    run(part)
  assert os.listdir(part / "checkpoints") == ["7"]


@pytest.mark.slow
def test_a_state_that_is_not_finite_is_not_saved(part, monkeypatch):
  """The first is refused; the run goes back and saves a whole one."""
  names = iter([["params/embed/token"]])
  monkeypatch.setattr(checksums, "not_finite", lambda _: next(names, []))
  run(part, steps=9, save_every=8)
  assert sorted(os.listdir(part / "checkpoints")) == ["7", "8", "9"]


@pytest.mark.slow
def test_a_longer_queue_goes_on_with_the_keys_of_the_shorter(part, caplog):
  objectives = dict(options(part)["objectives"])
  objectives["xlco"] = dataclasses.replace(objectives["xlco"], queue_size=40)
  before = stored(part, 7)[0]["objective_state"]["xlco"]["queue"]
  run(part, objectives=objectives, steps=8)
  assert "queue of xlco is another size" in caplog.text
  queue = stored(part, 8)[0]["objective_state"]["xlco"]["queue"]
  assert before["keys"].shape == (3, 8, 16) and before["pushes"] == 10
  # Of the 24 keys in 3 slots, none of which was let go: 4 slots of 5.
  assert queue["keys"].shape == (5, 8, 16) and queue["pushes"] == 4
  oldest_first = np.roll(before["keys"], -(10 % 3), axis=0)
  np.testing.assert_array_equal(queue["keys"][:3], oldest_first)


# What is refused. None of these compiles anything.


def snapshot(folder: Path) -> dict[Path, bytes | None]:
  return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(folder: Path, **changes) -> str:
  with pytest.raises(InputError) as caught:
    run(folder, **changes)
  return str(caught.value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"seed": 1}, "seed was 0 and is now 1"),
    ({"data": "/elsewhere"}, "/elsewhere"),
    ({"objectives": {}}, "objectives is empty"),
    ({"model": EncoderConfig(8002, 2, 32, 2, 32, 72)}, '"hidden_size": 32'),
    ({"steps": 5}, "done 7 updates"),
  ],
)
def test_another_run_is_not_continued(part, changes, message):
  before = snapshot(part)
  said = refused(part, **changes)
  assert message in said
  after = snapshot(part)
  for told_anew in ("environment.json", "run.lock"):
    before.pop(part / told_anew), after.pop(part / told_anew)
  assert after == before


def test_all_differences_are_listed(part):
  objectives = options(part)["objectives"] | {"tlm": small_run.MaskedLM("tlm")}
  said = refused(part, seed=3, objectives=objectives)
  assert "seed was 0 and is now 3" in said and "objectives was" in said


def test_folder_of_somebody_else(tmp_path):
  (tmp_path / "thesis.tex").write_text("mine")
  assert "thesis.tex" in refused(tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("below", [".", "below"])
def test_file_in_place_of_the_folder(tmp_path, below):
  file = tmp_path / "file"
  file.write_text("mine")
  assert str(file) in refused(file / below)
  assert file.read_text() == "mine"


def test_folder_that_cannot_be_made():
  assert "cannot be written" in refused(Path("/proc/1/run"))


def test_address_in_place_of_a_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert "is an address" in refused("gs://bucket/run")
  assert not list(tmp_path.iterdir())


def test_bad_input_can_be_put_right_in_the_same_folder(part, tmp_path):
  """Until the first update nothing of a run is there to be lost."""
  folder = tmp_path / "new"
  model = dataclasses.replace(options(folder)["model"], vocab_size=7000)
  said = refused(folder, model=model)
  assert "7000" in said and "8002" in said
  assert "no such" in refused(folder, data=str(tmp_path / "no")).lower()
  assert "holds another" not in refused(folder, data=str(tmp_path / "no2"))


def replace_in_checkpoint(folder: Path, name: str, content: bytes) -> None:
  """Replaces a small file of checkpoint 7, and its hash."""
  files = folder / "checkpoints" / "7" / "files"
  (files / name).write_bytes(content)
  sums = json.loads((files / "checksums.json").read_text())
  sums["files"][name] = hashlib.sha256(content).hexdigest()
  del sums["sha256"]  # as lists were before they had a checksum of their own
  (files / "checksums.json").write_text(json.dumps(sums))


def test_checkpoint_of_another_tokenizer(part):
  """The same size, another content: only the hash tells."""
  files = part / "checkpoints" / "7" / "files"
  model = json.loads((files / "model.json").read_text())
  model["tokenizer_sha256"] = "0" * 64
  replace_in_checkpoint(part, "model.json", json.dumps(model).encode())
  assert "trained with tokenizer 000000000000" in refused(part)


def test_data_that_were_prepared_again(part):
  """Another order of records behind the same path is another run."""
  said = json.loads((part / "data.json").read_text())["manifest_sha256"]
  store = Store(small_corpus.prepared() / "train")
  assert said == store.manifest_sha256
  content = json.dumps({"manifest_sha256": "0" * 64})
  (part / "data.json").write_text(content)
  replace_in_checkpoint(part, "data.json", content.encode())
  said = refused(part)
  assert "began with the data of manifest 000000000000" in said
  assert store.manifest_sha256[:12] in said


def _stream(**changes):
  options = {"batch": 4, "rows": 4, "row_length": small_run.LENGTH} | changes
  return {
    "mlm": streams.TextStream(**options),
    "xlco": streams.ContrastStream(batch=8, rows=8, row_length=72),
  }


def _contrast(**changes):
  objective = small_run.Contrast(
    stream="xlco", layer=1, pooling="first", queue_size=20
  )
  return {"xlco": dataclasses.replace(objective, **changes)}


@pytest.mark.parametrize(
  ("changes", "parts"),
  [
    ({"streams": _stream(row_length=73)}, ("row_length = 73", "= 72")),
    ({"streams": _stream(batch=6)}, ("TextStream.batch = 6", "4 groups")),
    ({"streams": _stream(rows=6)}, ("rows = 6", "4 groups")),
    ({"streams": _stream(batch=0)}, ("batch = 0",)),
    ({"streams": _stream(alpha=2.0)}, ("alpha = 2.0",)),
    ({"groups": 3}, ("batch = 4", "3 groups")),
    ({"groups": 0}, ("groups = 0",)),
    ({"microbatches": 3}, ("groups = 4", "multiple of 3")),
    ({"steps": 0}, ("steps = 0",)),
    ({"steps": "many"}, ("steps = 'many'", "whole number")),
    ({"objectives": {}}, ("objectives is empty",)),
    (
      {"objectives": {"mlm": small_run.MaskedLM(stream="mml")}},
      ("'mml'", "did you mean 'mlm'?"),
    ),
    ({"objectives": _contrast(queue_size=0)}, ("queue_size = 0",)),
    ({"objectives": _contrast(layer=3)}, ("layer = 3", "1 to 2")),
    ({"objectives": _contrast(temperature=0.0)}, ("temperature",)),
    ({"objectives": _contrast(pooling="maen")}, ("did you mean 'mean'?",)),
    (
      {"objectives": _contrast(negatives="queue+bach")},
      ("did you mean 'queue+batch'?",),
    ),
    ({"loss_norm": "join_sum"}, ("did you mean 'joint_sum'?",)),
    ({"keep_latest": 0}, ("keep_latest = 0",)),
    ({"keep_every": 0}, ("keep_every = 0",)),
    ({"replay_every": 0}, ("replay_every = 0", "REPLAY_EVERY")),
    ({"data": "/no/such"}, ("/no/such",)),
    ({"data": None}, ("DATA",)),
  ],
)
def test_refused_with_a_clear_message(tmp_path, changes, parts):
  said = refused(tmp_path / "run", **changes)
  for part in parts:
    assert part in said


def test_prepared_data_are_whole():
  assert (small_corpus.prepared() / "retrieval" / "test.jsonl").exists()


def test_rows_chosen_from_the_data_are_recorded(tmp_path, whole):
  """The same rows as given ones: the same programs and the same losses."""
  chosen = {
    "mlm": streams.TextStream(batch=4, row_length=small_run.LENGTH),
    "xlco": options(tmp_path)["streams"]["xlco"],
  }
  said = run(tmp_path / "run", streams=chosen, steps=2, log_every=10)
  assert "stream mlm: rows = 4 of 72 tokens for batch = 4" in said
  rows = json.loads((tmp_path / "run" / "rows.json").read_text())
  assert rows["mlm"]["rows"] == 4 and rows["mlm"]["chosen"]
  assert 0.5 < rows["mlm"]["fill"] <= 1 and rows["mlm"]["cut"] == 0
  assert rows["xlco"] == {
    "batch": 8,
    "rows": 8,
    "row_length": small_run.LENGTH,
    "chosen": False,
  }
  # A run that is shorter than log_every tells its mean at the end.
  (end,) = told(tmp_path / "run").items()
  both = [told(whole[0])[n]["train/loss"] for n in (1, 2)]
  assert end[0] == 2 and end[1]["train/loss"] == pytest.approx(np.mean(both))
  # How often each language was gone through: 20 updates of 4 blocks.
  epochs = told(whole[0], "data/mlm/epochs/")[STEPS]
  store = small_corpus.prepared() / "train" / "manifest.json"
  corpora = json.loads(store.read_text())["corpora"]
  counts = {
    c["languages"][0]: c["records"]
    for c in corpora[:]
    if len(c["languages"]) == 1
  }
  drawn = sum(counts[name.rpartition("/")[2]] * n for name, n in epochs.items())
  assert drawn == pytest.approx(4 * STEPS)


def test_small_damaged_files_do_not_stop_a_run(whole, part, caplog):
  """All of them at once; the run ends as it would have."""
  lines = (part / "metrics.jsonl").read_text().splitlines()
  lines[3] = lines[3].replace('"step"', '"stfp"')
  damaged = {
    "identity.json": b"\xff",
    "data.json": json.dumps({"manifest_sha256": "1" * 64}).encode(),
    "results.json": b'{"finished": tsue}',
    "metrics.jsonl": "\n".join(lines).encode() + b"\n",
  }
  before = {n: (part / n).read_bytes() for n in ("identity.json", "data.json")}
  for name, content in damaged.items():
    (part / name).write_bytes(content)
  run(part)
  for name, content in damaged.items():
    assert (part / f"{name}.damaged-1").read_bytes() == content
    assert f"{name}.damaged-1" in caplog.text
  for name, content in before.items():
    assert (part / name).read_bytes() == content
  arrays, position = stored(part, STEPS)
  wanted, wanted_position = stored(whole[0], STEPS)
  assert_same_bits(arrays, wanted)
  assert position == wanted_position
  (lost,) = set(told(whole[0])) - set(told(part))
  assert told(part) == {n: r for n, r in told(whole[0]).items() if n != lost}
  # Without the damage it is still this run, and no other.
  (part / "identity.json").unlink()
  assert "seed was 0 and is now 1" in refused(part, seed=1)


@pytest.mark.parametrize("when", ["filling", "measuring"])
def test_a_stop_before_the_first_update_saves_nothing(
  when, tmp_path, monkeypatch
):
  """Nor does it go on filling the queue, which takes long for a large one."""
  fill_step, filled = program.Program.fill_step, []

  def interrupted(*unused):
    os.kill(os.getpid(), signal.SIGTERM)

  def make_fill(own, name):
    fill = fill_step(own, name)

    def counted(*arguments):
      filled.append(name)
      if when == "filling":
        interrupted()
      return fill(*arguments)

    return counted

  monkeypatch.setattr(program.Program, "fill_step", make_fill)
  monkeypatch.setattr(Evaluator, "keep_start", interrupted)
  with pytest.raises(Stopped) as stop:
    run(tmp_path / "run")
  assert stop.value.code == EXIT_TERMINATED
  assert len(filled) == (1 if when == "filling" else 3)  # 20 keys in slots of 8
  assert os.listdir(tmp_path / "run" / "checkpoints") == []


def test_what_only_needs_other_memory_may_change(tmp_path):
  """So that a run can go on in its folder after it was out of memory."""
  arguments = options(tmp_path)
  run_dir.claim(tmp_path, known_by(arguments), comparable)
  (tmp_path / "metrics.jsonl").touch()  # it has begun
  mlm = dataclasses.replace(arguments["objectives"]["mlm"], logits_chunk=64)
  model = dataclasses.replace(arguments["model"], remat="full")
  changed = arguments | {"model": model, "objectives": {"mlm": mlm}}
  del arguments["objectives"]["xlco"]
  with pytest.raises(InputError, match="objectives was"):
    run_dir.claim(tmp_path, known_by(changed), comparable)
  run_dir.claim(tmp_path / "b", known_by(arguments), comparable)
  (tmp_path / "b" / "metrics.jsonl").touch()
  run_dir.claim(tmp_path / "b", known_by(changed), comparable)


def known_by(arguments) -> dict:
  """Model and objectives, as identity.json has them."""
  objectives = arguments["objectives"]
  return {
    "model": dataclasses.asdict(arguments["model"]),
    "objectives": {name: identity(o) for name, o in objectives.items()},
  }
