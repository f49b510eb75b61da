"""Language embeddings in fine-tuning: XLM has a language at every token."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from infoxlm_jax.checkpoint.importers.languages import languages_of
from infoxlm_jax.data.labelled.examples import Examples, Ragged
from infoxlm_jax.errors import InputError
from infoxlm_jax.finetuning.task import EvalSet, Task
from infoxlm_jax.model.config import EncoderConfig


def languages_for(
  model: EncoderConfig, source: str, given: Sequence[str] | None
) -> tuple[str, ...]:
  """The languages of the model's language embeddings; () if there are none.

  Args:
    model: the encoder's shapes.
    source: its weights, which may say it.
    given: the languages in the order of the rows, as a person says them; ()
      leaves the embeddings out.

  Raises:
    InputError: the model has such embeddings, and nobody says of which
      languages; or more languages are named than there are rows.
  """
  rows = model.type_vocab_size
  if model.architecture != "xlm" or not rows:
    if given:
      raise InputError(
        f"LANGUAGE_IDS = {', '.join(given)}: {source} has no language"
        " embeddings; leave LANGUAGE_IDS out"
      )
    return ()
  languages = languages_of(source) if given is None else tuple(given)
  if languages is None:
    raise InputError(
      f"{source}: has embeddings of {rows} languages, and does not say of"
      " which: set LANGUAGE_IDS to their codes, in the order of the rows,"
      " or to () to leave the embeddings out"
    )
  if len(languages) > rows or len(set(languages)) < len(languages):
    raise InputError(
      f"{source}: {', '.join(languages)} are not the languages of its {rows}"
      " embeddings; set LANGUAGE_IDS to their codes, each once"
    )
  return languages


def with_languages(task: Task, languages: tuple[str, ...], eos: int) -> Task:
  """The task with the row of its language at every token, as "types".

  In a pair of two languages (Task.crossed) all tokens up to the first `</s>`
  are of the first one.

  Args:
    task: that was read; its keys are languages, and pairs of them.
    languages: of the model, in the order of the rows.
    eos: id of `</s>`.

  Raises:
    InputError: the model has no embedding of a language.
  """
  rows = {language: row for row, language in enumerate(languages)}

  def of(name: str, language: str) -> int:
    if language not in rows:
      raise InputError(
        f"{task.source}: {name} is in {language!r}, of which the model has no"
        f" embedding; it has {', '.join(languages)}. Leave the language out"
      )
    return rows[language]

  def typed(split: str, key: str, own: Examples) -> Examples:
    codes = key.split("-") if split == "crossed" else [key]
    first, last = (of(f"{split} set {key}", codes[n]) for n in (0, -1))
    types = []
    for number in range(len(own)):
      tokens = own.tokens[number]
      end = int(np.argmax(tokens == eos)) + 1
      types.append(np.repeat([first, last], [end, len(tokens) - end]))
    arrays = {**own.arrays, "types": Ragged.of(types)}
    return dataclasses.replace(own, arrays=arrays)

  def sets(split: str, own: Mapping[str, EvalSet]) -> dict[str, EvalSet]:
    return {
      key: one._replace(examples=typed(split, key, one.examples))
      for key, one in own.items()
    }

  return dataclasses.replace(
    task,
    train={key: typed("train", key, own) for key, own in task.train.items()},
    dev=sets("dev", task.dev),
    test=sets("test", task.test),
    crossed=sets("crossed", task.crossed),
    facts={**task.facts, "language_embeddings": ", ".join(languages)},
  )
