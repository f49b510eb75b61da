"""Extractive question answering: MLQA, XQuAD, TyDiQA-GoldP, and own files."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from infoxlm_jax.data.labelled import question_sets, squad
from infoxlm_jax.data.labelled.encode import pair_form
from infoxlm_jax.data.labelled.examples import Examples
from infoxlm_jax.data.labelled.question_windows import (
  Context,
  WindowOptions,
  windows,
)
from infoxlm_jax.data.labelled.squad import Questions
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.evaluation import squad_score
from infoxlm_jax.evaluation.squad_score import Words
from infoxlm_jax.finetuning.task import EvalSet, Scores, Task
from infoxlm_jax.finetuning.tasks.answers import Asked, answer_texts
from infoxlm_jax.finetuning.tasks.files import by_language, held_out
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.span_extraction import SpanExtraction

NAME = "question_answering"
ByLanguage = Mapping[str, Questions]


def mlqa(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  *,
  data: str,
  languages: Sequence[str] = question_sets.MLQA,
  dev_languages: Sequence[str] = ("en",),
  crossed: bool = True,
  leave_out_unanswerable: bool = False,
  lengths: WindowOptions,
) -> Task:
  """MLQA after training on English SQuAD 1.1 (Lewis et al. 2020).

  Args:
    tokenizer, model: of the encoder.
    data: folder with SQuAD 1.1 and MLQA_V1; see question_sets.
    languages: to test.
    dev_languages: whose dev sets choose the model. The authors ask for no other
      than that of training where transfer is measured.
    crossed: whether to read questions in one language about contexts in
      another, for every pair of languages.
    leave_out_unanswerable: leave out questions without an answer.
    lengths: of rows and windows.

  Raises:
    InputError: a file is missing or broken. So do all functions here.
  """
  out = leave_out_unanswerable

  def read(split: str, context: str, question: str) -> Questions:
    return question_sets.read_mlqa(data, split, context, question, out)

  return make(
    tokenizer,
    model,
    train={"en": question_sets.read_squad(data, "train", out)},
    dev={one: read("dev", one, one) for one in dev_languages},
    test={one: read("test", one, one) for one in languages},
    crossed={
      f"{question}-{context}": read("test", context, question)
      for question in languages
      for context in languages
      if crossed
    },
    # Of a pair, answers are in the language of the context.
    words_of=lambda key: squad_score.mlqa_words(key.split("-")[-1]),
    source=data,
    lengths=lengths,
  )


def xquad(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  *,
  data: str,
  languages: Sequence[str] = question_sets.XQUAD,
  leave_out_unanswerable: bool = False,
  lengths: WindowOptions,
) -> Task:
  """XQuAD after training on English SQuAD 1.1, whose dev set chooses.

  XQuAD is a translation of a part of that dev set (Artetxe et al. 2020). For
  arguments see mlqa.
  """
  out = leave_out_unanswerable
  return make(
    tokenizer,
    model,
    train={"en": question_sets.read_squad(data, "train", out)},
    dev={"en": question_sets.read_squad(data, "dev", out)},
    test={one: question_sets.read_xquad(data, one, out) for one in languages},
    source=data,
    lengths=lengths,
  )


def tydiqa(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  *,
  data: str,
  languages: Sequence[str] = tuple(question_sets.TYDIQA),
  train_languages: Sequence[str] = ("en",),
  leave_out_unanswerable: bool = False,
  lengths: WindowOptions,
) -> Task:
  """TyDiQA-GoldP: its training set, and its dev set as the test (XTREME).

  A tenth of the training questions is held out to choose the model.

  Args:
    train_languages: to train on.
    tokenizer, model, data, languages, leave_out_unanswerable, lengths: see
      mlqa.
  """

  def read(split: str, some: Sequence[str]) -> dict[str, Questions]:
    return {
      one: question_sets.read_tydiqa(data, split, one, leave_out_unanswerable)
      for one in some
    }

  return make(
    tokenizer,
    model,
    train=read("train", train_languages),
    dev=None,
    test=read("dev", languages),
    source=data,
    lengths=lengths,
  )


def squad_files(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  *,
  train: str,
  test: str | None = None,
  dev: str | None = None,
  leave_out_unanswerable: bool = False,
  lengths: WindowOptions,
) -> Task:
  """Files of SQuAD's format, one a language, scored as SQuAD 1.1.

  Args:
    train, test, dev: path or glob, or several with commas between them, such
      as de.train.json. Without dev, a tenth of the training questions (at most
      2,000 a language) is held out for it.
    tokenizer, model, leave_out_unanswerable, lengths: see mlqa.
  """
  read = functools.partial(
    squad.read, leave_out_unanswerable=leave_out_unanswerable
  )
  return make(
    tokenizer,
    model,
    train=by_language("TRAIN", train, read),
    dev=by_language("DEV", dev, read) if dev else None,
    test=by_language("TEST", test, read) if test else {},
    source=train,
    lengths=lengths,
  )


def make(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  *,
  train: ByLanguage,
  dev: ByLanguage | None,
  test: ByLanguage,
  crossed: ByLanguage = MappingProxyType({}),
  words_of: Callable[[str], Words] = lambda key: squad_score.squad_words,
  source: str,
  lengths: WindowOptions,
) -> Task:
  """The task of questions that were read.

  Args:
    tokenizer, model: of the encoder.
    train, dev, test: questions by language. Without dev a part of train is
      held out.
    crossed: by "en-fr": question in English, context in French.
    words_of: how answers are compared, of a language or a pair.
    source: folder or files, for people.
    lengths: of rows and windows.
  """
  facts: dict[str, Any] = {}
  if dev is None:
    train, dev = _held_out(train)
    facts["dev"] = "held out of train"
  form = pair_form(model.ids, model.type_vocab_size)
  known: dict[str, Context] = {}
  counts: dict[str, Counter[str]] = {}

  def sets(split: str, given: ByLanguage) -> dict[str, EvalSet]:
    counted = counts[split] = Counter()
    out = {}
    for key, own in given.items():
      made = windows(tokenizer, own.questions, lengths, form, known)
      counted.update(made.counts)
      if split == "train":
        counted.update(made.label_counts)
      counted.update(stripped_answers=own.stripped, left_out=own.left_out)
      examples = Examples(
        made.tokens,
        made.labels if split == "train" else None,
        {} if made.types is None else {"types": made.types},
      )
      asked = Asked(own.questions, made.contexts, made.windows, words_of(key))
      out[key] = EvalSet(examples, asked)
    return out

  trained = sets("train", train)
  chosen_on = sets("dev", dev)
  tested, mixed = sets("test", test), sets("crossed", crossed)
  return Task(
    name=NAME,
    source=source,
    metric="f1",
    objective=SpanExtraction(),
    train={key: own.examples for key, own in trained.items()},
    dev=chosen_on,
    test=tested,
    crossed=mixed,
    score=score,
    row_length=lengths.max_length,
    padded=True,
    facts=facts | _facts(counts),
  )


def score(own: EvalSet, scores: Scores) -> dict[str, float]:
  """F1 and exact match of the best answers, as fractions."""
  asked = own.answers
  references = [
    [answer.text for answer in one.answers] for one in asked.questions
  ]
  return squad_score.score(answer_texts(asked, scores), references, asked.words)


def _held_out(
  questions: ByLanguage,
) -> tuple[dict[str, Questions], dict[str, Questions]]:
  """Training and dev questions, by a fixed order of the former."""
  train, dev = {}, {}
  for language, own in questions.items():
    train[language], held = map(own.select, held_out(len(own.questions)))
    # What was stripped or left out is counted once, for train.
    dev[language] = dataclasses.replace(held, stripped=0, left_out=0)
  return train, dev


def _facts(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
  """{what was counted: {split: number}}, without those that are 0."""
  names = sorted(set().union(*counts.values()))
  out = {
    name: {split: own[name] for split, own in counts.items() if own[name]}
    for name in names
  }
  return {name: of_splits for name, of_splits in out.items() if of_splits}
