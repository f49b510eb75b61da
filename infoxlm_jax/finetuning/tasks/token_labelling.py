"""Labels of words: named entities and parts of speech.

A word's label is read at its first piece, as in BERT (Devlin et al. 2019,
section 5.3) and XTREME.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import nervaluate
import numpy as np

from infoxlm_jax.data.labelled import conll, conll_folder, words
from infoxlm_jax.data.labelled.conll import Tagged
from infoxlm_jax.data.labelled.examples import Examples, Ragged
from infoxlm_jax.data.tokenizers.base import Tokenizer
from infoxlm_jax.finetuning.task import EvalSet, Scores, Task
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.token_labelling import TokenLabelling

# Universal Dependencies' 17 parts of speech. A language may use one that the
# training data have not; it can only be tagged wrongly then.
UPOS = frozenset(
  "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB"
  " X".split()
)
Languages = Sequence[str] | None


class Answers(NamedTuple):
  """What the scorers need of a set.

  Attributes:
    tags: of the words of each sentence.
    sentence: number of the sentence of each example, int64 [examples]; a long
      sentence has several.
  """

  tags: list[list[str]]
  sentence: np.ndarray


@dataclasses.dataclass(frozen=True)
class TaggedFiles:
  """Which files of a folder are read; see conll_folder for their names.

  Attributes:
    data: the folder.
    train_languages: to train on.
    dev_languages: whose dev sets choose the model; English, as in XTREME.
      None: all that have one.
    test_languages: to measure. None: all that have a test set.
    max_length: tokens of an example; a longer sentence becomes several, split
      between words, so that every word is read once.
  """

  data: str
  train_languages: Languages = ("en",)
  dev_languages: Languages = ("en",)
  test_languages: Languages = None
  max_length: int = 128


def ner(
  tokenizer: Tokenizer, model: EncoderConfig, *, files: TaggedFiles
) -> Task:
  """Named entities in BIO: precision, recall and F1 of whole entities.

  An entity counts where its type and both its ends are right, as in CoNLL's
  conlleval. I- after another type begins an entity, in files and predictions.

  Args:
    tokenizer, model: of the encoder.
    files: to read.

  Raises:
    InputError: a file is broken or missing, a tag is not in BIO, or one of dev
      or test has a type that train has not.
  """
  read = _read(files)
  facts = {
    "entities_that_begin_with_I": {
      split: sum(conll.check_bio(tagged) for tagged in _all(own))
      for split, own in read.items()
    }
  }
  types = {row.tag[2:] for row in conll.rows_of(_all(read["train"]))} - {""}
  classes = {f"{start}-{name}" for name in types for start in "BI"} | {"O"}
  return _task("ner", tokenizer, files, read, classes, "f1", facts)


def pos(
  tokenizer: Tokenizer, model: EncoderConfig, *, files: TaggedFiles
) -> Task:
  """Parts of speech: the share of words whose tag is right.

  Args:
    tokenizer, model: of the encoder.
    files: to read.

  Raises:
    InputError: a file is broken or missing, or a tag of dev or test is neither
      one of train's nor, where those are UPOS, one of UPOS.
  """
  read = _read(files)
  tags = {row.tag for row in conll.rows_of(_all(read["train"]))}
  classes = tags | UPOS if tags <= UPOS else tags
  return _task("pos", tokenizer, files, read, classes, "accuracy", {})


def _read(options: TaggedFiles) -> dict[str, dict[str, list[Tagged]]]:
  """{split: {language: files}}."""
  files = conll_folder.find(options.data)
  out = {}
  for split in conll_folder.SPLITS:
    wanted = getattr(options, f"{split}_languages")
    if split == "dev" and wanted is None and not files["dev"]:
      wanted = options.train_languages  # there must be one
    paths = conll_folder.chosen(
      files, split, wanted, f"{split.upper()}_LANGUAGES"
    )
    out[split] = {
      language: [conll.read(path, language) for path in own]
      for language, own in paths.items()
    }
  return out


def _task(
  name: str,
  tokenizer: Tokenizer,
  options: TaggedFiles,
  read: Mapping[str, Mapping[str, list[Tagged]]],
  tags: Collection[str],
  metric: str,
  facts: dict[str, Any],
) -> Task:
  classes = tuple(sorted(tags))
  for split in ("dev", "test"):
    for tagged in _all(read[split]):
      conll.check_tags(tagged, classes)
  counts: Counter[str] = Counter()
  sets = {
    split: {
      language: _set(tokenizer, own, classes, options.max_length, counts)
      for language, own in by_language.items()
    }
    for split, by_language in read.items()
  }
  scorer = entity_scores if name == "ner" else word_accuracy
  return Task(
    name=name,
    source=options.data,
    metric=metric,
    objective=TokenLabelling(classes=len(classes)),
    train={k: own.examples for k, own in sets["train"].items()},
    dev=sets["dev"],
    test=sets["test"],
    score=functools.partial(scorer, classes),
    classes=classes,
    row_length=options.max_length,
    facts=facts | counts,
  )


def word_accuracy(
  classes: Sequence[str], own: EvalSet, scores: Scores
) -> dict[str, float]:
  """The share of words whose highest logit is their tag's."""
  pairs = [
    (a, b)
    for wanted, given in zip(
      own.answers.tags, predicted(classes, own, scores), strict=True
    )
    for a, b in zip(wanted, given, strict=True)
  ]
  return {"accuracy": sum(a == b for a, b in pairs) / len(pairs)}


def entity_scores(
  classes: Sequence[str], own: EvalSet, scores: Scores
) -> dict[str, float]:
  """Precision, recall and F1 of entities, over all types and sentences.

  nervaluate's "strict" counts an entity where type and ends are right.
  """
  types = {tag[2:] for tag in classes if tag != "O"}
  found = nervaluate.Evaluator(
    own.answers.tags,
    predicted(classes, own, scores),
    tags=sorted(types),
    loader="list",
  ).evaluate()["overall"]["strict"]
  return {name: getattr(found, name) for name in ("f1", "precision", "recall")}


def predicted(
  classes: Sequence[str], own: EvalSet, scores: Scores
) -> list[list[str]]:
  """The likeliest tag of each word of each sentence.

  Of two equal logits the class of the lower number counts.
  """
  out: list[list[str]] = [[] for _ in own.answers.tags]
  labelled = own.examples.arrays["token_labels"]
  for number, sentence in enumerate(own.answers.sentence.tolist()):
    best = np.argmax(scores[number][labelled[number] > 0], axis=-1)
    out[sentence] += [classes[n] for n in best.tolist()]
  return out


def _all(files: Mapping[str, list[Tagged]]) -> list[Tagged]:
  """The files of all languages."""
  return [tagged for own in files.values() for tagged in own]


def _set(
  tokenizer: Tokenizer,
  files: Sequence[Tagged],
  classes: Sequence[str],
  max_length: int,
  counts: Counter[str],
) -> EvalSet:
  """Examples of a language, and their answers; adds to the counts."""
  sentences = [one for tagged in files for one in tagged.sentences]
  own = words.windows(
    tokenizer, [[row.word for row in one] for one in sentences], max_length
  )
  number = {tag: place for place, tag in enumerate(classes)}
  labels = []
  for window, sentence in enumerate(own.sentence.tolist()):
    mine = [0] + [1 + number[row.tag] for row in sentences[sentence]]
    labels.append(np.array(mine, np.int32)[own.first[window]])
  counts["sentences"] += len(sentences)
  counts["sentences_split_to_fit"] += own.split
  counts["words_with_unk"] += own.unknown
  counts["words_cut_to_fit"] += own.cut
  return EvalSet(
    Examples(own.tokens, None, {"token_labels": Ragged.of(labels)}),
    Answers([[row.tag for row in one] for one in sentences], own.sentence),
  )
