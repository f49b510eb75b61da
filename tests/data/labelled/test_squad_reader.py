"""Files of SQuAD's format in the published layouts, and what is refused."""

import gzip
import json

import pytest

from infoxlm_jax.data.labelled import question_sets, squad
from infoxlm_jax.errors import InputError

CONTEXT = "Der Fluss Rhein fließt durch Köln."


def question(name="q1", text="Rhein", start=10, **more):
  answers = [{"text": text, "answer_start": start}]
  return {"id": name, "question": "Welcher?", "answers": answers} | more


def write(path, *questions, context=CONTEXT):
  path.parent.mkdir(parents=True, exist_ok=True)
  paragraph = {"context": context, "qas": list(questions)}
  articles = [{"title": "Rhein", "paragraphs": [paragraph]}]
  path.write_text(json.dumps({"version": "1.0", "data": articles}), "utf-8")
  return path


def refused(path, **options):
  with pytest.raises(InputError) as caught:
    squad.read(path, **options)
  message = str(caught.value)
  assert str(path) in message and "\n" not in message
  return message


def test_a_file_and_a_packed_one(tmp_path):
  path = write(tmp_path / "a.json", question(), question("q2", "Köln", 29))
  read = squad.read(path)
  assert [one.id for one in read.questions] == ["q1", "q2"]
  assert read.questions[1].answers == (squad.Answer("Köln", 29),)
  assert read.questions[0].context == CONTEXT
  assert (read.stripped, read.left_out) == (0, 0)
  packed = tmp_path / "a.json.gz"
  packed.write_bytes(gzip.compress(path.read_bytes()))
  assert squad.read(packed).questions == read.questions


def test_answers_that_are_stripped(tmp_path):
  path = write(
    tmp_path / "a.json",
    question("q1", "Rhein  ", 10),
    question("q2", "  Rhein", 10),
    question("q3", " Rhein ", 9),
  )
  read = squad.read(path)
  assert read.stripped == 2  # the context has the third one's spaces
  for one in read.questions:
    (answer,) = one.answers
    assert CONTEXT[answer.start :].startswith(answer.text)
    assert answer.text.strip() == "Rhein"


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"start": 40}, "not within the context, which has 34 characters"),
    ({"start": -1}, "not within"),
    ({"start": 31}, "not within"),
    ({"start": 9}, "the context has ' Rhei' at character 9"),
    ({"start": "10"}, "'10'"),
    ({"question": 3}, "no text 'question'"),
    ({"answers": "Rhein"}, "no list of objects 'answers'"),
  ],
)
def test_wrong_questions_are_named(tmp_path, change, named):
  path = write(tmp_path / "a.json", question(), question("q2", **change))
  message = refused(path)
  assert "article 1, paragraph 1, question 2" in message and named in message


def test_an_id_that_occurs_twice(tmp_path):
  path = write(tmp_path / "a.json", question(), question())
  message = refused(path)
  assert "question 2, id 'q1'" in message and "question 1" in message
  assert len(squad.read(path, unique_ids=False).questions) == 2


def test_unanswerable_questions(tmp_path):
  path = write(
    tmp_path / "a.json",
    question(),
    question("q2", is_impossible=True, answers=[]),
    question("q3", answers=[]),
    question("q4", answers=[{"text": "", "answer_start": 0}]),
  )
  message = refused(path)
  assert "question 2, id 'q2'" in message and "2 others of the file's 4" in (
    message
  )
  assert "LEAVE_OUT_UNANSWERABLE" in message
  read = squad.read(path, leave_out_unanswerable=True)
  assert [one.id for one in read.questions] == ["q1"] and read.left_out == 3
  emptied = write(tmp_path / "b.json", question("q3", answers=[]))
  assert "XTREME's download script" in refused(emptied)
  assert "no question" in refused(emptied, leave_out_unanswerable=True)


@pytest.mark.parametrize(
  ("content", "named"),
  [
    ('{"data": [', "is not JSON"),
    ('{"rows": []}', 'no list "data"'),
    ('{"data": [1]}', "no list of objects 'data'"),
    ('{"data": [{"paragraphs": [{"qas": []}]}]}', "no text 'context'"),
  ],
)
def test_other_files(tmp_path, content, named):
  path = tmp_path / "a.json"
  path.write_text(content)
  assert named in refused(path)


def test_published_layouts(tmp_path):
  mlqa = "mlqa/MLQA_V1/test/test-context-de-question-en.json"
  write(tmp_path / mlqa, question("m"))
  write(tmp_path / "squad/train-v1.1.json", question("s"))
  write(tmp_path / "xquad/xquad.de.json", question("x"))
  for got, name in (
    (question_sets.read_mlqa(str(tmp_path), "test", "de", "en", False), "m"),
    (question_sets.read_squad(str(tmp_path), "train", False), "s"),
    (question_sets.read_xquad(str(tmp_path), "de", False), "x"),
  ):
    assert [one.id for one in got.questions] == [name]
  with pytest.raises(InputError, match=r"xquad\.hi\.json"):
    question_sets.read_xquad(str(tmp_path), "hi", False)
  write(tmp_path / "other/xquad.de.json", question("x"))
  with pytest.raises(InputError, match="same name"):
    question_sets.read_xquad(str(tmp_path), "de", False)


def test_tydiqa(tmp_path):
  train = tmp_path / "tydiqa/tydiqa-goldp-v1.1-train.json"
  write(train, question("finnish-12-0"), question("english-7-1"))
  dev = "tydiqa/tydiqa-goldp-v1.1-dev"
  write(tmp_path / dev / "tydiqa-goldp-dev-finnish.json", question("f"))
  write(tmp_path / dev / "tydiqa.goldp.ko.dev.json", question("k"))

  def ids(split, language, folder=tmp_path):
    read = question_sets.read_tydiqa(str(folder), split, language, False)
    return [one.id for one in read.questions]

  assert ids("train", "fi") == ["finnish-12-0"]
  assert ids("train", "en") == ["english-7-1"]
  assert ids("dev", "fi") == ["f"] and ids("dev", "ko") == ["k"]
  with pytest.raises(InputError, match="telugu-"):
    ids("train", "te")
  with pytest.raises(InputError, match="'fr'"):
    ids("train", "fr")
  # XTREME cuts ids to their last number, which is not unique.
  xtreme = tmp_path / "xtreme"
  cut = xtreme / "tydiqa.goldp.en.train.json"
  write(cut, question("1"), question("1"))
  assert ids("train", "en", xtreme) == ["1", "1"]
