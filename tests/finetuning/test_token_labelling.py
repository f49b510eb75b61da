"""Token labelling against transformers' numbers, scores by hand, a job."""

import contextlib
import io
import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import small_corpus
import small_model
import small_run
from hypothesis import given
from hypothesis import strategies as st

from infoxlm_jax.checkpoint.importers.load import load_weights, model_of
from infoxlm_jax.data.labelled.examples import Examples, Ragged
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.finetuning import job
from infoxlm_jax.finetuning.options import FineTuning
from infoxlm_jax.finetuning.predict import make_predict
from infoxlm_jax.finetuning.task import EvalSet
from infoxlm_jax.finetuning.tasks import token_labelling
from infoxlm_jax.finetuning.tasks.token_labelling import Answers, TaggedFiles
from infoxlm_jax.model import encoder, partitioning
from infoxlm_jax.objectives.base import Context
from infoxlm_jax.objectives.token_labelling import TokenLabelling
from infoxlm_jax.training.options import Parallelism, WeightOptions


def test_logits_and_loss_are_those_of_transformers():
  """The logits are its; the loss is worked out from them in numpy."""
  config, params, _ = load_weights(oracle.ORACLES / "xlmr_tok")
  params = jax.tree.map(jnp.asarray, params)
  numbers = oracle.load("xlmr_tok")
  real = numbers["attention_mask"] == 1
  labels = np.random.default_rng(0).integers(0, 6, real.shape) * real
  rows = oracle.rows(numbers["input_ids"])
  rows["token_labels"] = labels[:, None].astype(np.int32)
  objective = TokenLabelling(classes=5)

  def encode(params, rows, **options):
    return encoder.encode(params, rows, config, **options)

  logits = objective.scores(params, encode, rows, config)
  assert logits.shape == (4, 1, 17, 5)
  np.testing.assert_allclose(
    np.asarray(logits)[:, 0][real], numbers["logits"][real], atol=2e-5
  )
  loss = TokenLabelling.losses(
    {"task": objective}, params, encode, {"task": rows}, config, Context()
  )
  theirs, wanted = numbers["logits"][labels > 0], labels[labels > 0] - 1
  log_p = theirs - np.log(np.exp(theirs).sum(-1, keepdims=True))
  nll = -log_p[np.arange(len(wanted)), wanted].sum()
  assert float(loss.sum) == pytest.approx(nll, rel=1e-5)
  hits = (theirs.argmax(-1) == wanted).sum()
  assert loss.metrics["task/accuracy"] == (hits, len(wanted))


def test_predictions_on_a_mesh():
  """Of each example, the logits of its own tokens."""
  config, params, _ = load_weights(oracle.ORACLES / "xlmr_tok")
  mesh = partitioning.make_mesh(partitioning.MeshShape(2, 2, 2, devices=8))
  specs = partitioning.specs(params, mesh)
  placed = jax.device_put(params, partitioning.named(specs, mesh))
  predict = make_predict(TokenLabelling(classes=5), config, specs, mesh)
  numbers = oracle.load("xlmr_tok")
  real = numbers["attention_mask"] == 1
  tokens = [
    ids[own] for ids, own in zip(numbers["input_ids"], real, strict=True)
  ]
  labels = {"token_labels": Ragged.of([np.ones(len(t)) for t in tokens])}
  scores = predict(placed, Examples(Ragged.of(tokens), None, labels))
  for ours, theirs, own in zip(scores, numbers["logits"], real, strict=True):
    np.testing.assert_allclose(ours, theirs[own], atol=2e-5)


def test_the_end_of_a_cut_item_has_no_label():
  config, _, _ = load_weights(oracle.ORACLES / "xlmr_tok")
  rows = {
    "tokens": np.array([[[0, 7, 8, 2]]]),
    "token_labels": np.array([[[0, 3, 0, 2]]]),
  }
  out, counts = TokenLabelling(classes=3).corrupt(None, rows, config)
  assert out["token_labels"].tolist() == [[[0, 3, 0, 0]]]
  assert counts["terms"] == 1


# One sentence in two windows and another; a word may have further pieces.
CLASSES = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
FIRST = [[0, 1, 0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 1, 1, 0]]
TAGS = [
  "B-PER I-PER O B-LOC I-LOC".split(),
  "B-LOC O B-PER I-PER".split(),
]


def scored(predictions, score):
  """A set whose logits are highest at these tags."""
  labels = iter([CLASSES.index(tag) + 1 for tags in TAGS for tag in tags])
  own = EvalSet(
    Examples(
      Ragged.of([[9] * len(one) for one in FIRST]),
      None,
      {
        "token_labels": Ragged.of(
          [[next(labels) if mark else 0 for mark in one] for one in FIRST]
        )
      },
    ),
    Answers(TAGS, np.array([0, 0, 1])),
  )
  chosen = iter([tag for tags in predictions for tag in tags])
  scores = [
    np.array(
      [np.eye(5)[CLASSES.index(next(chosen)) if mark else 4] for mark in one]
    )
    for one in FIRST
  ]
  return score(CLASSES, own, scores)


def test_entities_by_hand():
  """Four true entities; two of five predicted ones are right.

  First PER right, LOC with a wrong end; then LOC right, and a LOC and a PER,
  both beginning with I-, where there is a PER of two words.
  """
  found = scored(
    ["B-PER I-PER O B-LOC O".split(), "B-LOC O I-LOC I-PER".split()],
    token_labelling.entity_scores,
  )
  precision, recall = 2 / 5, 2 / 4
  assert found == {
    "precision": pytest.approx(precision),
    "recall": pytest.approx(recall),
    "f1": pytest.approx(2 * precision * recall / (precision + recall)),
  }
  assert scored(TAGS, token_labelling.entity_scores)["f1"] == 1
  nothing = [["O"] * 5, ["O"] * 4]
  assert scored(nothing, token_labelling.entity_scores)["f1"] == 0


def entities(tags):
  """As conlleval: (type, first, last) of each entity."""
  out = []
  for n, tag in enumerate(tags):
    if tag == "O":
      continue
    joins = tag[0] == "I" and n and tags[n - 1][2:] == tag[2:]
    out.append((tag[2:], out.pop()[1] if joins else n, n))
  return set(out)


@given(st.data())
def test_entities_against_a_twin(drawn):
  tags = st.sampled_from(CLASSES)
  given_tags = [
    drawn.draw(st.lists(tags, min_size=size, max_size=size)) for size in (5, 4)
  ]
  found = scored(given_tags, token_labelling.entity_scores)
  both = [
    (entities(a), entities(b)) for a, b in zip(TAGS, given_tags, strict=True)
  ]
  right = sum(len(a & b) for a, b in both)
  predicted = sum(len(b) for _, b in both)
  assert found["recall"] == pytest.approx(right / 4)
  assert found["precision"] == pytest.approx(right / max(predicted, 1))


def test_words_by_hand():
  """Of nine words two are wrong; further pieces do not count."""
  found = scored(
    ["B-PER I-PER O B-LOC O".split(), "O O B-PER I-PER".split()],
    token_labelling.word_accuracy,
  )
  assert found == {"accuracy": pytest.approx(7 / 9)}


# A synthetic task: people and places of one or two words.
NAMES = {
  "PER": (("Abram", "Noah"), ("Nahor", "Esau")),
  "LOC": (("Jordan", "Moab"), ("Ur", "kingz")),
}
FILLER = "the king said that he would go up to them".split()


def sentence(draw):
  out = [(word, "O") for word in draw.choice(FILLER, 4)]
  kind = ("PER", "LOC")[draw.integers(2)]
  first, second = (draw.choice(names) for names in NAMES[kind])
  entity = [(first, f"B-{kind}"), (second, f"I-{kind}")]
  place = draw.integers(5)
  return out[:place] + entity[: draw.integers(1, 3)] + out[place:]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("panx")
  for n, (name, count) in enumerate(
    {"train-en": 160, "dev-en": 40, "test-en": 40, "test-de": 40}.items()
  ):
    draw = np.random.default_rng(n)
    blocks = [
      "".join(f"{word}\t{tag}\n" for word, tag in sentence(draw))
      for _ in range(count)
    ]
    (folder / f"{name}.tsv").write_text("\n".join(blocks))
  return folder


def tokenizer():
  return load_tokenizer(small_corpus.TOKENIZER)


@pytest.mark.slow
def test_a_task_is_learned(data, tmp_path):
  model = small_model.folder()
  with contextlib.redirect_stdout(io.StringIO()):
    job.finetune(
      options=FineTuning(
        str(tmp_path),
        seeds=(0,),
        rates=(1e-2,),
        epochs=8.0,
        batch=16,
        warmup=4,
        evaluations=2,
      ),
      task=lambda tokenizer, model: token_labelling.ner(
        tokenizer, model, files=TaggedFiles(str(data), max_length=32)
      ),
      model=model_of(model, dropout=0.1, attention_dropout=0.1),
      weights=WeightOptions(init_from=str(model)),
      parallelism=Parallelism(groups=1, mesh=small_run.ONE_DEVICE),
    )
  results = json.loads((tmp_path / "results.json").read_text())
  test = results["ner"]["test"]
  assert set(test) == {"f1", "precision", "recall"}
  assert test["f1"]["de"] > 0.9 and test["f1"]["mean"] > 0.9
  assert results["classes"] == list(CLASSES)
  assert results["entities_that_begin_with_I"] == {
    "train": 0, "dev": 0, "test": 0,
  }  # fmt: skip


def test_long_sentences_are_split_and_still_scored(data):
  """Each word has its answer, whatever the windows."""
  files = TaggedFiles(str(data), max_length=6)
  task = token_labelling.ner(tokenizer(), small_model.CONFIG, files=files)
  own = task.test["de"]
  assert task.facts["sentences_split_to_fit"] > 100
  assert len(own.examples) > len(own.answers.tags) == 40
  labels = own.examples.arrays["token_labels"]
  perfect = [np.eye(6)[labels[n]][:, 1:] for n in range(len(labels))]
  assert task.score(own, perfect)["f1"] == 1


def test_parts_of_speech(tmp_path):
  """All of UPOS are classes, for a language may use more than train has."""
  line = "{}\t{}\t_\t{}\t_\t_\t0\troot\t_\t_\n"
  for name, words in {
    "en_a-ud-train": [("dogs", "NOUN"), ("run", "VERB")],
    "en_a-ud-dev": [("dogs", "NOUN")],
    "ko_b-ud-test": [("!", "PUNCT"), ("dogs", "NOUN")],
  }.items():
    text = "".join(line.format(n, *w) for n, w in enumerate(words, 1))
    (tmp_path / f"{name}.conllu").write_text(text)
  files = TaggedFiles(str(tmp_path))
  task = token_labelling.pos(tokenizer(), small_model.CONFIG, files=files)
  assert len(task.classes) == 17 and task.metric == "accuracy"
  assert list(task.test) == ["ko"]
  always_noun = np.eye(17)[task.classes.index("NOUN")]
  scores = [
    np.tile(always_noun, (len(tokens), 1))
    for tokens in task.test["ko"].examples.tokens
  ]
  assert task.score(task.test["ko"], scores) == {"accuracy": 0.5}
  labels = Counter(task.train["en"].arrays["token_labels"].flat.tolist())
  assert labels[0] > 1 and sum(labels.values()) - labels[0] == 2


def test_what_is_refused(data, tmp_path):
  def read(**options):
    files = TaggedFiles(str(options.pop("data", tmp_path)), **options)
    token_labelling.ner(tokenizer(), small_model.CONFIG, files=files)

  with pytest.raises(InputError, match="TEST_LANGUAGES.*no test file of fr"):
    read(data=data, test_languages=("de", "fr"))
  (tmp_path / "train-en.tsv").write_text("a\tB-PER\nb\tO\n")
  with pytest.raises(InputError, match="DEV_LANGUAGES.*no dev file of en"):
    read()
  (tmp_path / "dev-en.tsv").write_text("a\tI-PER\nb\tB-LOC\n")
  with pytest.raises(InputError, match="dev-en.tsv, line 2: the tag 'B-LOC'"):
    read()
