"""The encoder in mteb, and beside transformers' own pipeline for masks."""

import numpy as np
import pytest
import small_corpus
import small_model

import infoxlm_jax

pytestmark = pytest.mark.parity
ROWS = [row for row in small_corpus.table() if row["en"] and row["de"]][:60]


@pytest.fixture(scope="module")
def model():
  return infoxlm_jax.load(
    small_model.folder(),
    devices=1,
    layer=2,
    pooling="mean_all",
    prompts={"BitextMining": "verse: "},
  )


def test_mteb_evaluates_an_encoder(model):
  mteb = pytest.importorskip("mteb")
  from datasets import Dataset, DatasetDict
  from mteb.abstasks import AbsTaskBitextMining
  from mteb.mocks.mock_tasks import MockBitextMiningTask
  from mteb.models import EncoderProtocol

  english, german = ([row[name] for row in ROWS] for name in ("en", "de"))

  class Verses(AbsTaskBitextMining):
    metadata = MockBitextMiningTask.metadata.model_copy(
      update={"name": "Verses"}
    )

    def load_data(self, **options):
      columns = {"sentence1": english, "sentence2": german}
      self.dataset = DatasetDict(test=Dataset.from_dict(columns))
      self.data_loaded = True

  assert isinstance(model, EncoderProtocol)
  results = mteb.evaluate(
    model, Verses(), cache=None, encode_kwargs={"batch_size": 7}
  )
  (scores,) = results.task_results[0].scores["test"]

  def vectors(texts):
    states = model.hidden_states(texts, prefix="verse: ")
    means = np.stack([one[2].mean(0) for one in states])
    return means / np.linalg.norm(means, axis=1, keepdims=True)

  nearest = (vectors(english) @ vectors(german).T).argmax(1)
  hits = (nearest == np.arange(len(ROWS))).mean()
  assert scores["accuracy"] == pytest.approx(hits)
  assert 0 < hits < 1
  meta = model.mteb_model_meta
  assert (meta.name, meta.embed_dim) == ("infoxlm_jax/model", 32)
  other = infoxlm_jax.load(small_model.folder(), devices=1, layer=1)
  assert other.mteb_model_meta.revision != meta.revision


@pytest.mark.parametrize("name", ["Retrieval", "STS", "Classification"])
def test_mteb_runs_its_kinds_of_tasks(model, name):
  mteb = pytest.importorskip("mteb")
  from mteb.mocks import mock_tasks

  task = getattr(mock_tasks, f"Mock{name}Task")()
  results = mteb.evaluate(
    model, task, cache=None, encode_kwargs={"batch_size": 8}
  )
  assert not results.exceptions
  assert 0 <= results.task_results[0].get_score() <= 1


def test_masks_are_filled_as_by_transformers(model):
  transformers = pytest.importorskip("transformers")
  pipeline = transformers.pipeline("fill-mask", str(small_model.folder()))
  texts = [
    "In the <mask> God created.",
    "<mask> schuf Gott",
    "Himmel und <mask>",
  ]
  for text, (filled,) in zip(texts, model.fill_mask(texts, top=4), strict=True):
    theirs = pipeline(text, top_k=4)
    assert [one.id for one in filled] == [one["token"] for one in theirs]
    np.testing.assert_allclose(
      [one.probability for one in filled],
      [one["score"] for one in theirs],
      rtol=1e-4,
    )
