"""Questions with their contexts as rows of tokens, and answers as tokens.

A context that is too long for a row is read in windows that overlap, each of
which begins `stride` tokens after the one before (Devlin et al. 2019,
run_squad.py):

    <s> question </s></s> tokens 0..n of the context </s>
    <s> question </s></s> tokens stride..stride+n </s>
"""

import dataclasses
import unicodedata
from collections import Counter
from collections.abc import MutableMapping, Sequence
from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.labelled.encode import PairForm
from infoxlm_jax.data.labelled.examples import Ragged, ids_of
from infoxlm_jax.data.labelled.squad import Answer, Question
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class WindowOptions:
  """How long a row is. Numbers are tokens; those of XTREME are the defaults.

  Attributes:
    max_length: of a row.
    stride: between the beginnings of two windows.
    max_question: that are kept of a question; the rest is cut off.
  """

  max_length: int = 384
  stride: int = 128
  max_question: int = 64


class Context(NamedTuple):
  """The tokens of a context.

  Attributes:
    ids: int32 [tokens].
    spans: first character of each token and the one after its last, int64
      [tokens, 2], without white space around it; equal where a token stands
      for none.
  """

  ids: np.ndarray
  spans: np.ndarray


class Window(NamedTuple):
  """A part of a context, in a row.

  Attributes:
    question: the number of its question.
    first: place in the row of its first token.
    start, end: which tokens of the context it is.
  """

  question: int
  first: int
  start: int
  end: int


class Windows(NamedTuple):
  """Rows of tokens of some questions.

  Attributes:
    tokens: ids of each row.
    types: of the same lengths, 1 from the context on; None where the model
      tells no types apart.
    labels: places in the row of the first and the last token of the question's
      first answer, int32 [rows, 2]; 0 (`<s>`) where the window does not hold
      all of it, -1 where no token stands for it.
    windows: of each row.
    contexts: of each question.
    counts: questions, windows, and questions that were cut.
    label_counts: of what cannot be learned: windows without the answer, answers
      without a token, and other answers than the first.
  """

  tokens: Ragged
  types: Ragged | None
  labels: np.ndarray
  windows: list[Window]
  contexts: list[Context]
  counts: Counter[str]
  label_counts: Counter[str]


def windows(
  tokenizer: Tokenizer,
  questions: Sequence[Question],
  options: WindowOptions,
  form: PairForm,
  known: MutableMapping[str, Context],
) -> Windows:
  """Encodes questions with the windows of their contexts.

  Args:
    tokenizer: the model's.
    questions: to encode.
    options: lengths.
    form: how the model joins two texts.
    known: contexts that are encoded already, by text; new ones are added.

  Raises:
    InputError: a row has no room for a context, or the tokenizer knows no
      offsets.
  """
  _check(options, form)
  cut = not_first = 0
  rows, labels, parts, contexts = [], [], [], []
  encoded = tokenizer.encode_batch([one.question for one in questions])
  ids = ids_of(tokenizer)
  for number, (one, asked) in enumerate(zip(questions, encoded, strict=True)):
    if one.context not in known:
      known[one.context] = encode_context(tokenizer, one.context)
    context = known[one.context]
    contexts.append(context)
    cut += len(asked) > options.max_question
    asked = asked[: options.max_question]
    prefix = [ids.bos, *asked, *[ids.eos] * form.separators]
    answer = answer_tokens(context, one.answers[0])
    not_first += len(one.answers) - 1
    room = options.max_length - len(prefix) - 1
    for start in _starts(len(context.ids), room, options.stride):
      end = min(start + room, len(context.ids))
      rows.append(np.array([*prefix, *context.ids[start:end], ids.eos]))
      parts.append(Window(number, len(prefix), start, end))
      labels.append(_label(answer, parts[-1]))
  places = np.array(labels, np.int32).reshape(-1, 2)
  whose = np.array([part.question for part in parts])
  types = [
    np.repeat([0, 1], [part.first, len(row) - part.first])
    for part, row in zip(parts, rows, strict=True)
  ]
  return Windows(
    Ragged.of(rows),
    Ragged.of(types) if form.types else None,
    places,
    parts,
    contexts,
    Counter(questions=len(questions), windows=len(parts), cut_questions=cut),
    Counter(
      windows_without_answer=int(np.sum(places[:, 0] == 0)),
      answers_without_tokens=len(np.unique(whose[places[:, 0] < 0])),
      answers_not_used=not_first,
    ),
  )


def encode_context(tokenizer: Tokenizer, text: str) -> Context:
  """The tokens of a context, and the characters of each."""
  ids, spans = tokenizer.encode_with_offsets(text)
  return Context(ids, _bare(text, spans))


def answer_tokens(context: Context, answer: Answer) -> tuple[int, int] | None:
  """The first and the last token with characters of an answer; None: none."""
  starts, ends = context.spans.T
  end = answer.start + len(answer.text)
  held = np.flatnonzero(
    (starts < ends) & (starts < end) & (ends > answer.start)
  )
  return (int(held[0]), int(held[-1])) if len(held) else None


def _bare(text: str, spans: np.ndarray) -> np.ndarray:
  """Spans without white space around them, but with all parts of a letter.

  A normalizer may compose a letter with the marks or the Hangul vowels after
  it, and leave these out of the span: they are in no other.
  """
  out = []
  limits = [*spans[1:, 0].tolist(), len(text)]
  for (start, end), limit in zip(spans.tolist(), limits, strict=False):
    while start < end and text[start].isspace():
      start += 1
    while start < end and text[end - 1].isspace():
      end -= 1
    while start < end < limit and _is_shown(text[end]):
      end += 1
    out.append((start, end))
  return np.array(out, np.int64).reshape(-1, 2)


def _is_shown(character: str) -> bool:
  """Whether it is neither white space nor a control character."""
  return unicodedata.category(character)[0] not in "CZ"


def _starts(length: int, room: int, stride: int) -> range:
  """First tokens of the windows of a context."""
  step = min(stride, room)
  beyond = max(length - room, 0)  # tokens that the first window cannot hold
  return range(0, -(-beyond // step) * step + 1, step)


def _label(answer: tuple[int, int] | None, window: Window) -> tuple[int, int]:
  if answer is None:
    return -1, -1
  if answer[0] < window.start or answer[1] >= window.end:
    return 0, 0
  shift = window.first - window.start
  return answer[0] + shift, answer[1] + shift


def _check(options: WindowOptions, form: PairForm) -> None:
  for name in ("max_length", "stride", "max_question"):
    if getattr(options, name) < 1:
      raise InputError(
        f"WindowOptions.{name} = {getattr(options, name)} is not above 0."
      )
  needed = options.max_question + form.separators + 3
  if options.max_length < needed:
    raise InputError(
      f"max_length = {options.max_length} leaves no room for a context beside"
      f" max_question = {options.max_question} tokens: set it to {needed} or"
      " more (MAX_LENGTH), better to 384."
    )
