"""Questions about contexts, in files of SQuAD's JSON format.

    {"data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [
      {"id": ..., "question": ..., "answers": [
        {"text": ..., "answer_start": ...}]}]}]}]}

SQuAD, MLQA, XQuAD and TyDiQA-GoldP have it. `answer_start` counts characters
of the context from 0.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from infoxlm_jax.data.corpora.open_files import reading
from infoxlm_jax.data.corpora.unpacking import unpacked
from infoxlm_jax.errors import InputError

_SHOWN = 40  # characters of a text in a message


class Answer(NamedTuple):
  """A reference: its text, and its first character in the context."""

  text: str
  start: int


class Question(NamedTuple):
  """A question with its context and its references, of which it has one."""

  id: str
  question: str
  context: str
  answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Questions:
  """The questions of a file.

  Attributes:
    where: the file, for messages.
    questions: in the file's order.
    stripped: answers with white space around them that the context does not
      have there.
    left_out: questions without an answer.
  """

  where: str
  questions: tuple[Question, ...]
  stripped: int = 0
  left_out: int = 0

  def select(self, numbers: Iterable[int]) -> "Questions":
    """Some of the questions, in the order asked for; the counts are of all."""
    return dataclasses.replace(
      self, questions=tuple(self.questions[n] for n in numbers)
    )


def read(
  path: Path,
  *,
  leave_out_unanswerable: bool = False,
  unique_ids: bool = True,
) -> Questions:
  """Reads a file, which may be compressed.

  A question is unanswerable where it is marked `is_impossible` (SQuAD 2), or
  where no answer has a text.

  Args:
    path: of the file.
    leave_out_unanswerable: leave out such questions, and count them.
    unique_ids: whether an id may occur only once.

  Raises:
    InputError: the file is missing or not of this format, an answer is not at
      its place in the context, an id occurs twice, or questions are
      unanswerable and not to be left out.
  """
  questions: list[Question] = []
  places: dict[str, str] = {}
  unanswerable: list[str] = []
  stripped = 0
  for place, context, entry in _entries(path):
    question = _text(entry, "question", place)
    name = _text(entry, "id", place)
    place = f"{place}, id {name!r}"
    if unique_ids and name in places:
      raise InputError(f"{place}: the id occurs before, in {places[name]}.")
    places[name] = place
    answers = _list(entry, "answers", place) if _answered(entry) else []
    answers = [one for one in answers if _text(one, "text", place).strip()]
    if not answers:
      unanswerable.append(place)
      continue
    located = [_located(one, context, place) for one in answers]
    stripped += sum(moved for _, moved in located)
    references = tuple(answer for answer, _ in located)
    questions.append(Question(name, question, context, references))
  if unanswerable and not leave_out_unanswerable:
    raise InputError(_refusal(unanswerable, len(places)))
  if not questions:
    raise InputError(f"{path} has no question with an answer.")
  return Questions(str(path), tuple(questions), stripped, len(unanswerable))


def _entries(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
  """Place, context and entry of every question of a file."""
  with reading(path), unpacked(path) as file:
    content = file.read()
  try:
    described = json.loads(content)
  except (ValueError, RecursionError) as error:
    raise InputError(
      f"{path} is not JSON ({error}): truncated, or another kind of file?"
    ) from error
  if not isinstance(described, dict) or "data" not in described:
    raise InputError(
      f'{path} has no list "data": it is not of SQuAD\'s format, in which'
      " articles hold paragraphs, and these a context and questions."
    )
  for number, article in enumerate(_list(described, "data", str(path)), 1):
    at = f"{path}, article {number}"
    for count, paragraph in enumerate(_list(article, "paragraphs", at), 1):
      place = f"{at}, paragraph {count}"
      context = _text(paragraph, "context", place)
      for entry, question in enumerate(_list(paragraph, "qas", place), 1):
        yield f"{place}, question {entry}", context, question


def _located(
  answer: dict[str, Any], context: str, place: str
) -> tuple[Answer, bool]:
  """An answer where the context has it, and whether it had to be stripped."""
  text, start = answer["text"], answer.get("answer_start")
  if isinstance(start, bool) or not isinstance(start, int):
    raise InputError(
      f'{place}: "answer_start" is {start!r}, not a number of characters.'
    )
  if not 0 <= start <= len(context) - len(text.strip()):
    raise InputError(
      f"{place}: the answer {_short(text)} at character {start} is not within"
      f" the context, which has {len(context):,} characters."
    )
  if context.startswith(text, start):
    return Answer(text, start), False
  bare = text.strip()
  for first in (start, start + len(text) - len(text.lstrip())):
    if context.startswith(bare, first):
      return Answer(bare, first), True
  there = context[start : start + len(text)]
  raise InputError(
    f"{place}: the answer is {_short(text)}, but the context has"
    f" {_short(there)} at character {start}. Are the numbers bytes, or was the"
    " text changed after they were made?"
  )


def _refusal(places: list[str], total: int) -> str:
  message = (
    f"{places[0]}: the question has no answer, and neither have"
    f" {len(places) - 1:,} others of the file's {total:,}."
  )
  if len(places) == total:
    return (
      f"{message} XTREME's download script removes the answers of test files:"
      " give the files as their authors published them."
    )
  return (
    f"{message} A span cannot answer them: take a file without them, such as"
    " SQuAD 1.1's, or leave them out with"
    " --gin.LEAVE_OUT_UNANSWERABLE=True."
  )


def _answered(entry: dict[str, Any]) -> bool:
  return "answers" in entry and not entry.get("is_impossible")


def _list(holder: dict[str, Any], name: str, place: str) -> list[Any]:
  """A list of objects."""
  value = holder.get(name)
  if not isinstance(value, list) or not all(isinstance(x, dict) for x in value):
    raise InputError(f"{place}: no list of objects {name!r} is there.")
  return value


def _text(holder: dict[str, Any], name: str, place: str) -> str:
  value = holder.get(name)
  if not isinstance(value, str):
    raise InputError(f"{place}: no text {name!r} is there.")
  return value


def _short(text: str) -> str:
  return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
