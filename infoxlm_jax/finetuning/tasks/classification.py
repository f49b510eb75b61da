"""Classification of texts and of pairs of texts."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infoxlm_jax.data.labelled import pair_sets, tsv
from infoxlm_jax.data.labelled.crossed import crossed as cross_languages
from infoxlm_jax.data.labelled.encode import encode, pair_form
from infoxlm_jax.data.labelled.examples import Examples
from infoxlm_jax.data.labelled.pair_sets import PairSet
from infoxlm_jax.data.labelled.tsv import Texts
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.finetuning.task import EvalSet, Scores, Task
from infoxlm_jax.finetuning.tasks.files import by_language, held_out
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.classification import Classification

NAME = "classification"
ByLanguage = Mapping[str, Texts]


def tsv_files(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  *,
  train: str,
  test: str | None = None,
  dev: str | None = None,
  max_length: int = 128,
) -> Task:
  """Files of `label<TAB>text` or `label<TAB>text<TAB>text2`, one a language.

  Args:
    tokenizer, model: of the encoder.
    train, test, dev: path or glob, or several with commas between them, such
      as en.train.tsv. Without dev, a tenth of the training examples (at most
      2,000 a language) is held out for it.
    max_length: tokens of an example; longer ones are cut, and counted.

  Raises:
    InputError: a file is broken, a language has two, or a label of dev or test
      is not among those of train.
  """
  return make(
    tokenizer,
    model,
    by_language("TRAIN", train, tsv.read),
    by_language("DEV", dev, tsv.read) if dev else None,
    by_language("TEST", test, tsv.read) if test else {},
    source=train,
    max_length=max_length,
  )


def xnli(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  *,
  data: str,
  train: Sequence[str] | None = ("en",),
  languages: Sequence[str] | None = None,
  max_length: int = 128,
  crossed: int = 500,
) -> Task:
  """XNLI, in its own layout or XTREME's; see data/labelled/pair_sets.py.

  Args:
    tokenizer, model: of the encoder.
    data: folder of the files.
    train: languages to train on: ("en",) is cross-lingual transfer, None (all
      that there are) translate-train-all.
    languages: of dev and test; None: all that there are.
    max_length: tokens of a pair; longer ones are cut, and counted.
    crossed: rows of the test set with the premise in one language and the
      hypothesis in another, for every pair of languages; 0: none.

  Raises:
    InputError: see pair_sets.read_xnli and make.
  """
  sets = pair_sets.read_xnli(data, train, languages)
  return _of_pairs(tokenizer, model, sets, data, max_length, crossed)


def pawsx(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  *,
  data: str,
  train: Sequence[str] | None = ("en",),
  languages: Sequence[str] | None = None,
  max_length: int = 128,
) -> Task:
  """PAWS-X; arguments and errors as xnli's."""
  sets = pair_sets.read_pawsx(data, train, languages)
  return _of_pairs(tokenizer, model, sets, data, max_length, 0)


def _of_pairs(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  sets: PairSet,
  data: str,
  max_length: int,
  crossed: int,
) -> Task:
  task = make(
    tokenizer,
    model,
    sets.train,
    sets.dev,
    sets.test,
    source=data,
    max_length=max_length,
    crossed=cross_languages(sets.test, crossed),
  )
  return dataclasses.replace(task, facts={**task.facts, **sets.notes})


def make(
  tokenizer: Tokenizer,
  model: EncoderConfig,
  train: ByLanguage,
  dev: ByLanguage | None,
  test: ByLanguage,
  *,
  source: str,
  max_length: int,
  crossed: ByLanguage | None = None,
) -> Task:
  """The task of texts that were read.

  Args:
    tokenizer, model: of the encoder.
    train, dev, test: labelled texts by language. Without dev a part of train
      is held out.
    source: folder or files, for people.
    max_length: tokens of an example.
    crossed: pairs whose texts are of two languages, by "en-fr".

  Raises:
    InputError: a label of dev or test is not among those of train, or train
      has pairs and another part has not.
  """
  classes = tuple(
    sorted({label for own in train.values() for label in own.labels})
  )
  cut: Counter[str] = Counter()

  def examples(split: str, texts: ByLanguage) -> dict[str, Examples]:
    out = {}
    for language, own in texts.items():
      _check(own, classes, next(iter(train.values())))
      encoded = encode(
        tokenizer,
        own.first,
        own.second,
        max_length=max_length,
        form=pair_form(model.ids, model.type_vocab_size),
      )
      cut[split] += encoded.truncated
      labels = np.array(
        [classes.index(label) for label in own.labels], np.int32
      )
      arrays = {} if encoded.types is None else {"types": encoded.types}
      out[language] = Examples(encoded.tokens, labels, arrays)
    return out

  trained = examples("train", train)
  facts: dict[str, Any] = {}
  if dev is None:
    trained, chosen_on = _held_out(trained)
    facts["dev"] = (
      f"held out of train: {sum(map(len, chosen_on.values())):,} examples"
    )
  else:
    chosen_on = examples("dev", dev)
  tested, mixed = examples("test", test), examples("crossed", crossed or {})
  facts["cut_to_max_length"] = dict(cut)
  facts["majority_class"] = _majority(trained, tested, classes)
  return Task(
    name=NAME,
    source=source,
    metric="accuracy",
    objective=Classification(classes=len(classes)),
    train=trained,
    dev=_sets(chosen_on),
    test=_sets(tested),
    crossed=_sets(mixed),
    score=accuracy,
    classes=classes,
    row_length=max_length,
    facts=facts,
  )


def accuracy(own: EvalSet, scores: Scores) -> dict[str, float]:
  """The share of examples whose highest logit is their label's.

  Of two equal logits the class of the lower number counts.
  """
  best = np.array([np.argmax(one) for one in scores])
  return {"accuracy": float(np.mean(best == own.examples.labels))}


def _sets(examples: Mapping[str, Examples]) -> dict[str, EvalSet]:
  return {language: EvalSet(own) for language, own in examples.items()}


def _check(own: Texts, classes: tuple[str, ...], train: Texts) -> None:
  if (own.second is None) != (train.second is None):
    kinds = ["single texts", "pairs of texts"]
    raise InputError(
      f"{own.where} has {kinds[own.second is not None]}, {train.where} has"
      f" {kinds[train.second is not None]}: they are not of one task"
    )
  known = set(classes)
  for row, label in enumerate(own.labels, 1):
    if label not in known:
      raise InputError(
        f"{own.where}, row {row}: the label {label!r} is not among those of"
        f" the training data: {', '.join(classes)}"
      )


def _held_out(
  examples: Mapping[str, Examples],
) -> tuple[dict[str, Examples], dict[str, Examples]]:
  """Training and dev examples, by a fixed order of the former."""
  train, dev = {}, {}
  for language, own in examples.items():
    train[language], dev[language] = map(own.select, held_out(len(own)))
  return train, dev


def _majority(
  train: Mapping[str, Examples],
  test: Mapping[str, Examples],
  classes: tuple[str, ...],
) -> dict[str, float | str]:
  """The most frequent class of train, and its accuracy on test: a floor."""
  labels = np.concatenate([_labels(own) for own in train.values()])
  common = int(np.bincount(labels, minlength=len(classes)).argmax())
  out: dict[str, float | str] = {"class": classes[common]}
  for language, own in test.items():
    out[language] = float(np.mean(_labels(own) == common))
  return out


def _labels(own: Examples) -> np.ndarray:
  assert own.labels is not None
  return own.labels
