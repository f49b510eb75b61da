"""The answers that a model gives to questions, as texts of their contexts."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infoxlm_jax.data.labelled.question_windows import Context, Window
from infoxlm_jax.data.labelled.squad import Question
from infoxlm_jax.evaluation.best_span import best_span
from infoxlm_jax.evaluation.squad_score import Words
from infoxlm_jax.finetuning.task import Scores


class Asked(NamedTuple):
  """The questions of an EvalSet, whose examples are their windows.

  Attributes:
    questions: with contexts and references.
    contexts: tokens of each question's context.
    windows: of each example.
    words: how answers are compared; see squad_score.
  """

  questions: Sequence[Question]
  contexts: Sequence[Context]
  windows: Sequence[Window]
  words: Words


def answer_texts(asked: Asked, scores: Scores) -> list[str]:
  """The best answer to each question, over all windows of its context.

  A token may begin an answer only in the window that has most tokens around it,
  as in BERT's run_squad.

  Args:
    asked: the questions.
    scores: logits of start and end in each window, [row tokens, 2].

  Returns:
    Texts as the contexts have them; "" where no span is possible.
  """
  numbers: defaultdict[int, list[int]] = defaultdict(list)
  for number, window in enumerate(asked.windows):
    numbers[window.question].append(number)
  out = []
  for question, (one, context) in enumerate(
    zip(asked.questions, asked.contexts, strict=True)
  ):
    own = [asked.windows[number] for number in numbers[question]]
    home = _home(own, len(context.ids))
    some = context.spans[:, 0] < context.spans[:, 1]
    best, text = -np.inf, ""
    for place, number in enumerate(numbers[question]):
      window = own[place]
      held = slice(window.start, window.end)
      size = window.end - window.start
      logits = scores[number][window.first : window.first + size]
      span = best_span(
        logits[:, 0],
        logits[:, 1],
        some[held] & (home[held] == place),
        some[held],
      )
      if span is not None and span.score > best:
        best = span.score
        tokens = context.spans[held][span.first : span.last + 1]
        text = one.context[tokens[:, 0].min() : tokens[:, 1].max()]
    out.append(text)
  return out


def _home(windows: Sequence[Window], tokens: int) -> np.ndarray:
  """The window in which each token has most others around it [tokens].

  What counts is the smaller number of those before and after it; of equal
  windows the longer one is taken, then the first.
  """
  around = np.full((len(windows), tokens), -1.0)
  for place, window in enumerate(windows):
    size = window.end - window.start
    at = np.arange(size)
    around[place, window.start : window.end] = (
      np.minimum(at, size - 1 - at) + 0.01 * size
    )
  return around.argmax(axis=0)
