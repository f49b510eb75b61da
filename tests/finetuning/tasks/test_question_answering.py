"""Published layouts, answers over windows, and a run that learns."""

import json
import random

import numpy as np
import pytest
import small_corpus
import small_model
import small_run

from infoxlm_jax.checkpoint.importers.find_tokenizer import with_ids_of
from infoxlm_jax.checkpoint.importers.load import model_of
from infoxlm_jax.data.labelled.question_windows import WindowOptions
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.finetuning import job
from infoxlm_jax.finetuning.options import FineTuning
from infoxlm_jax.finetuning.tasks import question_answering as qa
from infoxlm_jax.finetuning.tasks.answers import answer_texts
from infoxlm_jax.training.options import Parallelism, WeightOptions

LENGTHS = WindowOptions(max_length=24, stride=6, max_question=6)
WORDS = "sea land king city river house water bread stone light".split()


def write(path, count, seed):
  """Contexts of words; the answer is the word after "Lord"."""
  draw = random.Random(seed)
  paragraphs = []
  for number in range(count):
    words = draw.choices(WORDS, k=8)
    marker = draw.randrange(7)
    words[marker] = "Lord"
    context = " ".join(words)
    start = len(" ".join(words[: marker + 1])) + 1
    answer = {"text": words[marker + 1], "answer_start": start}
    asked = {"id": f"english-{number}", "question": "who", "answers": [answer]}
    paragraphs.append({"context": context, "qas": [asked]})
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
  return path


def encoder():
  tokenizer = load_tokenizer(small_corpus.TOKENIZER)
  return tokenizer, with_ids_of(small_model.CONFIG, tokenizer, "here")


def perfect(own):
  """Logits that are highest at the answer, in every window that holds it."""
  out = []
  for window in own.answers.windows:
    question = own.answers.questions[window.question]
    context = own.answers.contexts[window.question]
    answer = question.answers[0]
    logits = np.zeros((window.first + window.end - window.start + 1, 2))
    for token in range(window.start, window.end):
      a, b = context.spans[token]
      at = window.first + token - window.start
      logits[at, 0] = 9 * (a == answer.start)
      logits[at, 1] = 9 * (b == answer.start + len(answer.text))
    out.append(logits)
  return out


def test_mlqa_with_every_pair_of_languages(tmp_path):
  write(tmp_path / "squad/train-v1.1.json", 20, 0)
  folder = tmp_path / "MLQA_V1"
  write(folder / "dev/dev-context-en-question-en.json", 5, 1)
  for a in ("en", "de"):
    for b in ("en", "de"):
      write(folder / f"test/test-context-{a}-question-{b}.json", 4, 2)
  task = qa.mlqa(
    *encoder(), data=str(tmp_path), languages=("en", "de"), lengths=LENGTHS
  )
  assert set(task.crossed) == {"en-en", "en-de", "de-en", "de-de"}
  assert list(task.dev) == ["en"] and list(task.test) == ["en", "de"]
  # Answers are normalised in the language of the context.
  words = task.crossed["en-de"].answers.words
  assert words("die the") == ["the"]
  assert task.padded and task.row_length == 24
  assert max(task.train["en"].tokens.lengths) <= 24
  own = task.test["de"]
  assert task.score(own, perfect(own)) == {"f1": 1.0, "exact_match": 1.0}
  empty = [np.zeros_like(one) for one in perfect(own)]
  assert task.score(own, empty)["f1"] < 1
  (folder / "test/test-context-de-question-en.json").unlink()
  with pytest.raises(InputError, match="context-de-question-en"):
    qa.mlqa(
      *encoder(), data=str(tmp_path), languages=("en", "de"), lengths=LENGTHS
    )


def test_an_answer_comes_from_the_window_with_most_around_it(tmp_path):
  write(tmp_path / "tydiqa-goldp-v1.1-train.json", 30, 0)
  write(tmp_path / "tydiqa-goldp-dev-english.json", 30, 1)
  short = WindowOptions(max_length=10, stride=3, max_question=4)
  task = qa.tydiqa(
    *encoder(), data=str(tmp_path), languages=("en",), lengths=short
  )
  assert task.facts["dev"] == "held out of train"
  assert task.facts["questions"] == {"train": 27, "dev": 3, "test": 30}
  own = task.test["en"]
  assert task.facts["windows"]["test"] == len(own.answers.windows) > 60
  texts = answer_texts(own.answers, perfect(own))
  wanted = [one.answers[0].text for one in own.answers.questions]
  assert texts == wanted


@pytest.mark.slow
def test_a_run_learns_the_word_after_a_marker(tmp_path):
  """A floor is .1: a word of ten drawn blindly."""
  train = write(tmp_path / "en.train.json", 1600, 0)
  test = write(tmp_path / "en.test.json", 100, 1)
  weights = str(small_model.folder())

  def task(tokenizer, model):
    return qa.squad_files(
      tokenizer, model, train=str(train), test=str(test), lengths=LENGTHS
    )

  job.finetune(
    options=FineTuning(
      model_dir=str(tmp_path / "out"),
      seeds=(0,),
      rates=(3e-3,),
      epochs=8,
      evaluations=2,
    ),
    task=task,
    model=model_of(weights),
    weights=WeightOptions(init_from=weights),
    parallelism=Parallelism(groups=1, mesh=small_run.ONE_DEVICE),
  )
  results = json.loads((tmp_path / "out" / "results.json").read_text())
  measured = results[qa.NAME]["test"]
  assert measured["f1"]["en"] > 0.9
  assert measured["exact_match"]["en"] > 0.9
