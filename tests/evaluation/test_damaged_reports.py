"""start.json and results.json of a run, damaged after training wrote them."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.report import (
  final_report,
  results_file,
  start_scores,
)
from infoxlm_jax.evaluation.retrieval import Retrieval
from infoxlm_jax.evaluation.retrieval_eval import POOLINGS, Scored

LANGUAGES = ("de", "fr")


def scores() -> dict[str, Scored]:
  accuracy = np.linspace(0, 1, 3 * len(POOLINGS) * 4)
  table = accuracy.reshape(3, len(POOLINGS), 2, 2)
  counts = {"de": 10, "fr": 8}
  retrieval = Retrieval(table, LANGUAGES, tuple(POOLINGS), counts, "en")
  return {"dev": Scored({}, {}, retrieval), "test": Scored({}, {}, retrieval)}


@pytest.fixture
def kept(tmp_path):
  start_scores.keep_start(tmp_path, scores())
  return tmp_path / "start.json"


def test_a_whole_one(kept, capsys):
  found = start_scores.read_start(kept.parent)
  for split, scored in scores().items():
    mine, other = found[split].retrieval, scored.retrieval
    np.testing.assert_array_equal(mine.accuracy, other.accuracy)
    assert mine.languages == other.languages and mine.counts == other.counts
  assert capsys.readouterr().out == ""


def dropped(name):
  return lambda content: content["dev"].pop(name)


def set_to(name, value):
  return lambda content: content["dev"].update({name: value})


@pytest.mark.parametrize(
  "change",
  [
    dropped("accuracy"),
    dropped("languages"),
    dropped("pivot"),
    set_to("accuracy", [[1, 2], [3]]),
    set_to("accuracy", [["a"]]),
    set_to("accuracy", 3),
    set_to("languages", ["de", "ft"]),
    set_to("languages", [["de"], {}]),
    set_to("poolings", ["mean"] * 9),
    set_to("counts", []),
    lambda content: content.update(dev=[]),
  ],
)
def test_a_damaged_start_is_said_and_counts_as_none(kept, change, capsys):
  """It is read after weeks of training, at every restart again."""
  content = json.loads(kept.read_text())
  del content["crc"]  # as in files of older versions
  change(content)
  kept.write_text(json.dumps(content))
  assert start_scores.read_start(kept.parent) == {}
  said = capsys.readouterr().out
  assert "does not compare with the first update" in said and str(kept) in said


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"", b"[]"])
def test_files_that_are_no_object(kept, content):
  kept.write_bytes(content)
  assert start_scores.read_start(kept.parent) == {}
  (kept.parent / "results.json").write_bytes(content)
  with pytest.raises(InputError, match="results.json: not the results of"):
    results_file.read_results(kept.parent)


@pytest.mark.parametrize(
  "content",
  [
    b"\xff",
    b"[]",
    b'{"finished": true, "steps": "20"}',
    b'{"finished": true, "steps": 20, "retrieval": {"dev": 3}}',
    b'{"finished": true, "steps": 20, "retrieval": [1]}',
  ],
)
def test_damaged_results_are_set_aside(tmp_path, content, caplog):
  """The next start measures the last checkpoint again."""
  (tmp_path / "results.json").write_bytes(content)
  assert not final_report.say_if_finished(tmp_path, 20)
  assert "results.json.damaged-1" in caplog.text
  assert [p.name for p in tmp_path.iterdir()] == ["results.json.damaged-1"]
  assert not final_report.say_if_finished(tmp_path, 20)


def test_a_changed_digit_is_noticed(kept, caplog, capsys):
  """The files are still JSON, and all of their numbers are possible ones."""
  path = results_file.write_results(
    kept.parent, {"finished": True, "steps": 20}
  )
  for file in (kept, path):
    text = file.read_text()
    place = re.search(r"\d", text).start()
    digit = str((int(text[place]) + 1) % 10)
    file.write_text(text[:place] + digit + text[place + 1 :])
  assert start_scores.read_start(kept.parent) == {}
  assert "its checksum differs" in capsys.readouterr().out
  assert not final_report.say_if_finished(kept.parent, 20)
  assert "results.json.damaged-1" in caplog.text


ODD = st.sampled_from([None, -1, 1 << 70, 1.5, "", "x", [], {}, [[]], True])


@settings(max_examples=40)
@given(st.data())
def test_noise_in_a_start(tmp_path_factory, data):
  """Whatever value it holds, it does not fail the report of the end."""
  folder = tmp_path_factory.mktemp("run")
  start_scores.keep_start(folder, scores())
  content = json.loads((folder / "start.json").read_text())
  del content["crc"]  # as in files of older versions
  place = content
  while True:
    keys = list(place) if isinstance(place, dict) else range(len(place))
    key = data.draw(st.sampled_from(list(keys)))
    inner = place[key]
    if not isinstance(inner, dict | list) or data.draw(st.integers(0, 4)) == 0:
      break
    place = inner
  place[key] = data.draw(ODD)
  (folder / "start.json").write_text(json.dumps(content))
  start = start_scores.read_start(folder)
  final_report._retrieval(start_scores.comparable(start, scores()), scores())
