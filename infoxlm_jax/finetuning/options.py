"""Options of fine-tuning, which a gin file binds."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class FineTuning:
  """How a model is fine-tuned.

  Attributes:
    model_dir: folder of the job; every run has its own folder in it.
    seeds: a run for each; results are their mean and standard deviation.
    rates: peak learning rates. Of several, each is tried with the first seed,
      and the one with the best mean dev score is taken for all seeds.
    epochs: passes over the training examples.
    max_steps: stop after so many updates, where that is earlier. None: no
      limit.
    batch: examples of an update.
    warmup: updates in which the rate rises from 0: a share of all where it is
      below 1, else their number.
    weight_decay: decoupled, of all but biases and norms.
    evaluations: times that dev is measured, at equal distances; the last one
      is at the end.
    log_every: updates between lines of metrics.jsonl.
    crossed: whether to measure every language pair with the chosen model:
      premise in one language, hypothesis in the other.
    random_weights: start from random weights, the head's and the encoder's,
      instead of the model's: the floor that says what pretraining adds.
    language_ids: codes of the model's language embeddings, in the order of the
      rows. None: as the model says. (): without embeddings.
  """

  model_dir: str
  seeds: Sequence[int] = (0, 1, 2, 3, 4)
  rates: Sequence[float] = (2e-5,)
  epochs: float = 3.0
  max_steps: int | None = None
  batch: int = 32
  warmup: float = 0.1
  weight_decay: float = 0.0
  evaluations: int = 10
  log_every: int = 10
  crossed: bool = True
  random_weights: bool = False
  language_ids: Sequence[str] | None = None
