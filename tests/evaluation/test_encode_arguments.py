"""What Encoder.encode takes: kinds of texts, names of options, prompts."""

import types

import numpy as np
import pytest
import small_model

import infoxlm_jax
from infoxlm_jax.errors import InputError

TEXTS = ["In the beginning", "", "元始に神"]


@pytest.fixture(scope="module")
def model():
  return infoxlm_jax.load(small_model.folder(), devices=1)


@pytest.mark.parametrize(
  ("texts", "message"),
  [
    ("one text", "a list of texts, not one text"),
    (b"bytes", "a list of texts, not one text"),
    (None, "a list of texts, not None"),
    (3.5, r"a list of texts, not 3.5 \(float\)"),
    ({"text": ["a"]}, "a list of texts, not a dict"),
    (["a", None], r"text 1 \(the first is 0\) is None, not a str"),
    (["a", "b", float("nan")], r"text 2 .* is nan \(float\)"),
    ([b"a"], "text 0 .* is a bytes"),
    ([["a"]], "text 0 .* is a list"),
    ([{"texts": ["a"]}], "a batch has texts, where a list of texts named"),
    ([{"text": "a"}], "a batch has text, where a list of texts named"),
  ],
)
def test_what_is_no_list_of_texts_is_named(model, texts, message):
  for method in (model.encode, model.tokenize, model.logits):
    with pytest.raises(InputError, match=message):
      method(texts)


def test_any_iterable_of_texts_will_do(model):
  expected = model.encode(["a", "b"])
  batches = [{"text": ["a"], "title": [""]}, {"text": ["b"]}]
  for texts in (iter(["a", "b"]), np.array(["a", "b"]), ("a", "b"), batches):
    np.testing.assert_array_equal(model.encode(texts), expected)


def test_the_names_of_other_libraries_mean_the_same(model):
  expected = model.encode(TEXTS, prompt="query: ", normalize=True)
  same = {
    "show_progress_bar": False,
    "normalize_embeddings": True,
    "convert_to_numpy": True,
    "precision": "float32",
  }
  vectors = model.encode(TEXTS, prefix="query: ", **same)
  np.testing.assert_array_equal(vectors, expected)
  with pytest.raises(TypeError, match="no option 'promt'; did you mean 'prom"):
    model.encode(TEXTS, promt="query: ")
  with pytest.raises(InputError, match="prefix and prompt are the same option"):
    model.encode(TEXTS, prefix="a", prompt="b")
  with pytest.raises(InputError, match="convert_to_tensor = True"):
    model.encode(TEXTS, convert_to_tensor=True)


def test_an_encoder_keeps_layer_pooling_and_prompts(model):
  other = infoxlm_jax.load(
    small_model.folder(),
    devices=1,
    layer=2,
    pooling="mean_all",
    normalize=True,
    prompts={"query": "query: ", "STS": "same: ", "Mine-query": "mine: "},
  )

  def expected(prompt):
    return model.encode(
      TEXTS, layer=2, pooling="mean_all", normalize=True, prompt=prompt
    )

  def task(name, kind):
    return types.SimpleNamespace(name=name, type=kind)

  for prompt, options in (
    ("", {}),
    ("query: ", {"prompt_name": "query"}),
    ("own", {"prompt": "own"}),
    ("", {"prompt": "", "prompt_type": "query"}),
    # mteb's order: name with type of prompt, name, kind of task, prompt.
    ("query: ", {"task_metadata": task("A", "B"), "prompt_type": "query"}),
    ("mine: ", {"task_metadata": task("Mine", "STS"), "prompt_type": "query"}),
    ("same: ", {"task_metadata": task("A", "STS"), "prompt_type": "query"}),
    ("", {"task_metadata": task("A", "B"), "prompt_type": "document"}),
  ):
    np.testing.assert_allclose(
      other.encode(TEXTS, **options), expected(prompt), atol=1e-6
    )
  with pytest.raises(InputError, match=r"'querry' is not one .* \(query, STS"):
    other.encode(TEXTS, prompt_name="querry")
  with pytest.raises(InputError, match="layer 4: the model has 3 layers"):
    infoxlm_jax.load(small_model.folder(), devices=1, layer=4)
