"""A task as fine-tuning sees it: examples, an objective, and a scorer."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from infoxlm_jax.data.labelled.examples import Examples
from infoxlm_jax.objectives.labelled import Labelled

# What the objective's head gives of each example: logits of its classes [C],
# or of its tokens [length, C].
Scores = Sequence[np.ndarray]


class EvalSet(NamedTuple):
  """What is measured at one time, usually one language.

  Attributes:
    examples: that the model reads.
    answers: what the scorer needs besides: references, offsets, texts.
  """

  examples: Examples
  answers: Any = None


@dataclasses.dataclass(frozen=True)
class Task:
  """A labelled task.

  Attributes:
    name: "classification"; the key in results.json.
    source: the folder or files of the data, for people.
    metric: of those that `score` gives, the one that chooses models; higher
      is better.
    objective: with its classes.
    train: examples to train on, by language.
    dev: sets that choose the model, by language.
    test: sets by language; never used to choose.
    crossed: sets by pair of languages, "en-fr", measured once with the chosen
      model: premise in one language, hypothesis in the other; or question and
      context.
    score: (set, scores) -> measures as fractions, by name.
    classes: labels in the order of their numbers; () where there are none.
    row_length: tokens of a training row.
    padded: one example a training row, for examples that must not be cut.
    facts: for results.json: files, counts, what was cut or left out.
  """

  name: str
  source: str
  metric: str
  objective: Labelled
  train: Mapping[str, Examples]
  dev: Mapping[str, EvalSet]
  test: Mapping[str, EvalSet]
  score: Callable[[EvalSet, Scores], Mapping[str, float]]
  crossed: Mapping[str, EvalSet] = dataclasses.field(default_factory=dict)
  classes: tuple[str, ...] = ()
  row_length: int = 128
  padded: bool = False
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
