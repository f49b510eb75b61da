"""--dry_run and --compile_for of a training job."""

import pytest
import small_corpus
import small_run
from small_run import LENGTH, options

from infoxlm_jax.analysis.plan import plan
from infoxlm_jax.data.streams import TextStream
from infoxlm_jax.errors import InputError
from infoxlm_jax.model import partitioning


def _text(**changes):
  """The streams of a small run with another stream of texts."""
  text = {"batch": 4, "rows": 4, "row_length": LENGTH} | changes
  return options("unused")["streams"] | {"mlm": TextStream(**text)}


def test_it_touches_nothing(tmp_path, capsys):
  plan(options(tmp_path / "run"))
  said = capsys.readouterr().out
  assert "parameters" in said and "FLOPs" in said
  assert not list(tmp_path.iterdir())
  with pytest.raises(InputError, match="row_length = 73"):
    plan(options(tmp_path / "run", streams=_text(row_length=73)))


def test_options_are_checked_as_by_training(tmp_path):
  for changes, says in (
    ({"steps": 0}, r"RunOptions.steps = 0 .*--gin.STEPS=NUMBER"),
    ({"log_every": 1.5}, r"= 1.5 .*--gin.RunOptions.log_every=NUMBER"),
    ({"loss_norm": "sum"}, "loss_norm = 'sum'"),
    ({"microbatches": 3}, "groups = 4 is not a multiple of 3"),
  ):
    with pytest.raises(InputError, match=says):
      plan(options(tmp_path, **changes))


def test_weights_that_do_not_fit_are_told(tmp_path):
  weights = small_run.hugging_face(tmp_path / "model")
  with pytest.raises(InputError, match="type_vocab_size is 0 in this .* and 1"):
    plan(options(tmp_path / "run", init_from=str(weights)))


def test_rows_are_chosen_from_the_data(capsys):
  streams = _text(rows=None)
  with pytest.raises(InputError, match=r"\['mlm'\] have rows = None.*DATA"):
    plan(options("unused", streams=streams, data=None))
  plan(options("unused", streams=streams))
  assert "stream mlm: rows = 4 of 72 tokens for batch = 4" in (
    capsys.readouterr().out
  )


def test_rows_are_chosen_from_what_the_run_has_prepared(tmp_path, capsys):
  run = tmp_path / "run"
  run.mkdir()
  (run / "data").symlink_to(small_corpus.prepared())
  plan(options(run, streams=_text(rows=None), data=None))
  assert "stream mlm: rows = 4" in capsys.readouterr().out


def test_the_machine_that_is_meant(capsys):
  """A target changes only the report of costs, not the job."""
  plan(options("unused", mesh=partitioning.ALL_DEVICES), target="v5e:2x2")
  said = capsys.readouterr().out
  assert "on 4 device(s) of v5e:2x2" in said
  assert "should fit        v5e\n" in said


def test_a_job_that_is_no_training():
  with pytest.raises(
    InputError, match="not a training job.* has no run, model"
  ):
    plan({"model_dir": "x", "corpora": []})
