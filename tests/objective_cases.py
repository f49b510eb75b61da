"""Every objective of the package on a small task that it can learn.

A new objective class needs a case here: tests/training/test_every_objective.py
trains each case, and fails where a class is in none.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import invented_languages
from invented_languages import IDS, LANGUAGES, STORE

from infoxlm_jax.data.alternating_stream import AlternatingStream
from infoxlm_jax.data.code_mixed_stream import CodeMixedStream
from infoxlm_jax.data.labelled_stream import LabelledStream
from infoxlm_jax.data.next_sentence_stream import NextSentenceStream
from infoxlm_jax.data.paraphrase_stream import ParaphraseStream
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.model import partitioning
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.base import Objective
from infoxlm_jax.objectives.classification import Classification
from infoxlm_jax.objectives.contrast import Contrast
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.objectives.next_sentence import NextSentence
from infoxlm_jax.objectives.paraphrase import Paraphrase
from infoxlm_jax.objectives.span_extraction import SpanExtraction
from infoxlm_jax.objectives.token_labelling import TokenLabelling
from infoxlm_jax.objectives.word_alignment import WordAlignment
from infoxlm_jax.objectives.word_recovery import WordRecovery
from infoxlm_jax.training import optimizer, schedules
from infoxlm_jax.training.options import Parallelism, UpdateOptions
from infoxlm_jax.training.program import Program, make_program
from infoxlm_jax.training.schedules import Schedule

GROUPS, BATCH, LENGTH = 16, 16, 20
_SIZE = {"batch": BATCH, "rows": BATCH, "row_length": LENGTH}
_LANGUAGES = {"language_ids": LANGUAGES, "frequencies": True}


class Case(NamedTuple):
  """Objectives that are trained together, and how.

  Attributes:
    objectives, streams: by name, as pretrain.pretrain takes them.
    falls: by metric, the most that is left of a loss after 30 updates, as a
      share of what it was: the mean of the last four over that of updates 3 to
      6. Margins: see CASES.
    period: batches of the fixed data set, which are repeated.
    types: rows of the model's type embedding.
    hidden: the model's hidden size.
    rate: learning rate of update n + 1 as a function of n.
    slow: whether it is left to the slow tests.
    store: that the streams read.
  """

  objectives: Mapping[str, Objective]
  streams: Mapping[str, Any]
  falls: Mapping[str, float]
  period: int = 2
  types: int = 0
  hidden: int = 32
  rate: Schedule = schedules.constant(1e-2)
  slow: bool = True
  store: Any = STORE


TEXT = TextStream(**_SIZE)
PAIRS = PairStream(**_SIZE)
CONTRAST = ContrastStream(**_SIZE)
SEGMENTS = NextSentenceStream(**_SIZE)
# As in gin/baselines/xlm.gin: a language's embedding at each token, positions
# that begin again, targets by frequency, MLM and TLM in turn.
XLM_TEXT = TextStream(**_SIZE, **_LANGUAGES)
XLM_PAIRS = PairStream(**_SIZE, **_LANGUAGES, restart_positions=True)
XLM_BOTH = AlternatingStream(streams={"mlm": XLM_TEXT, "tlm": XLM_PAIRS})
BY_FREQUENCY = MaskedLM("xlm", mask_specials=False, frequency_power=0.5)
PARAPHRASES = ParaphraseStream(**_SIZE)
MIXED = CodeMixedStream(**_SIZE, sentences=2)
# As in gin/objectives/from_scratch.gin.
LEARNS = Contrast(
  layer=2,
  pooling="mean",
  projection=False,
  normalize=True,
  temperature=0.05,
  mask_prob=0.0,
  negatives="queue+batch",
  queue_size=BATCH,
  momentum=0.9,
)
# As in gin/objectives/infoxlm.gin, with a shorter memory.
RELEASED = Contrast(
  layer=1,
  queue_size=BATCH,
  momentum=0.9,
  random_mask=True,
  push_skipped=True,
  sync_last_five=True,
  head="released",
)

# Shares left with the seeds 0 to 4, smallest to largest, the bounds above them:
# mlm .68 to .82, tlm .77 to .86, xlm_mlm .74 to .82, xlm .81 to .84, bert .66
# to .80 and next_loss .01 to .64, alignment .45 to .62 and tlm_loss .71 to .87,
# contrast .31 to .42, released 0 to .14, of the batch .42 to .68, and of two
# contrasts .19 to .33 and .22 to .36; word recovery .43 to .46, paraphrase 0 to
# .01, code-mixed .76 to .84, classification 0 to .25, labels of tokens below
# .01, answers too.
CASES = {
  "mlm": Case(
    {"mlm": MaskedLM("mlm")}, {"mlm": TEXT}, {"mlm/loss": 0.9}, slow=False
  ),
  "tlm": Case({"tlm": MaskedLM("tlm")}, {"tlm": PAIRS}, {"tlm/loss": 0.9}),
  "xlm_mlm": Case(
    {"xlm": BY_FREQUENCY}, {"xlm": XLM_TEXT}, {"xlm/loss": 0.9}, types=2
  ),
  "xlm": Case(
    {"xlm": BY_FREQUENCY}, {"xlm": XLM_BOTH}, {"xlm/loss": 0.9}, types=2
  ),
  "next_sentence": Case(
    {"bert": NextSentence(next_weight=5.0)},
    {"bert": SEGMENTS},
    {"bert/loss": 0.87, "bert/next_loss": 0.8},
    period=1,
    types=2,
    slow=False,
  ),
  "word_alignment": Case(
    {"alignment": WordAlignment(layer=1)},
    {"tlm": PAIRS},
    {"alignment/loss": 0.8, "alignment/tlm_loss": 0.93},
    slow=False,
  ),
  "word_recovery": Case(
    {"recovery": WordRecovery()},
    {"tlm": PAIRS},
    {"recovery/loss": 0.6},
    slow=False,
  ),
  "paraphrase": Case(
    {"paraphrase": Paraphrase()},
    {"paraphrase": PARAPHRASES},
    {"paraphrase/loss": 0.3},
    period=1,
    slow=False,
  ),
  "code_mixed": Case(
    {"mixed": MaskedLM("mixed")}, {"mixed": MIXED}, {"mixed/loss": 0.9}
  ),
  "classification": Case(
    {"task": Classification(classes=2)},
    {"examples": LabelledStream(**_SIZE)},
    {"task/loss": 0.5},
    store=invented_languages.labelled(),
    slow=False,
  ),
  "token_labelling": Case(
    {"task": TokenLabelling(classes=2)},
    {
      "examples": LabelledStream(
        **_SIZE, arrays=("token_labels",), label_size=0
      )
    },
    {"task/loss": 0.5},
    store=invented_languages.labelled(),
    slow=False,
  ),
  "span_extraction": Case(
    {"task": SpanExtraction()},
    {"examples": LabelledStream(**_SIZE, padded=True, label_size=2)},
    {"task/loss": 0.5},
    store=invented_languages.with_answers(),
    slow=False,
  ),
  # All pairs in an update: retrieval is solved after 120, see the tests.
  "contrast": Case(
    {"xlco": dataclasses.replace(LEARNS, negatives="batch")},
    {"xlco": dataclasses.replace(CONTRAST, batch=64, rows=64)},
    {"xlco/loss": 0.6},
    hidden=64,
    rate=schedules.linear_warmup_decay(3e-3, 4, 120),
    slow=False,
  ),
  "contrast_released": Case(
    {"xlco": RELEASED},
    {
      "xlco": ContrastStream(**_SIZE, mixup="disjoint", join_after_masking=True)
    },
    {"xlco/loss": 0.6},
  ),
  "contrast_of_the_batch": Case(
    {
      "xlco": Contrast(
        layer=1,
        pooling="mean_all",
        negatives="batch",
        directions="both",
        queue_size=BATCH,
        queue_dtype="bfloat16",
        momentum=0.0,
      )
    },
    {"xlco": ContrastStream(**_SIZE, mixup="random", cross_sides=True)},
    {"xlco/loss": 0.8},
  ),
  "two_contrasts": Case(
    {
      "low": dataclasses.replace(LEARNS, layer=1, negatives="batch"),
      "high": LEARNS,
    },
    {"xlco": CONTRAST},
    {"low/loss": 0.6, "high/loss": 0.6},
  ),
}


# All classes in one run, for the default test of meshes: one program more than
# the single device's. Two contrasts are in it.
TOGETHER = Case(
  {
    "mlm": MaskedLM("mlm"),
    "tlm": MaskedLM("tlm"),
    "xlm": BY_FREQUENCY,
    "bert": NextSentence(),
    "alignment": WordAlignment(layer=1),
    "recovery": WordRecovery(),
    "paraphrase": Paraphrase(),
    "low": RELEASED,
    "high": LEARNS,
  },
  {
    "mlm": TEXT,
    "tlm": PAIRS,
    "xlm": XLM_BOTH,
    "bert": SEGMENTS,
    "paraphrase": PARAPHRASES,
    "xlco": CONTRAST,
  },
  {},
  types=2,
)


def program(
  case: Case, shape: tuple[int, int, int] = (1, 1, 1), microbatches: int = 1
) -> Program:
  """What pretrain.pretrain would train; `shape` is data, fsdp, tensor."""
  sizes = partitioning.MeshShape(*shape, devices=math.prod(shape))
  model = EncoderConfig(
    vocab_size=IDS.size,
    num_layers=2,
    hidden_size=case.hidden,
    num_heads=2,
    ffn_size=2 * case.hidden,
    max_positions=LENGTH,
    type_vocab_size=case.types,
  )
  return make_program(
    model,
    case.objectives,
    case.streams,
    UpdateOptions(optimizer.adamw(case.rate), case.rate),
    Parallelism(groups=GROUPS, microbatches=microbatches, mesh=sizes),
    partitioning.make_mesh(sizes),
  )


def batch(case: Case, number: int, seed: int = 0) -> dict[str, Any]:
  """Batch of that number of the streams, by name."""
  return {
    name: invented_languages.batch(stream, case.store, number, GROUPS, seed)
    for name, stream in case.streams.items()
  }
