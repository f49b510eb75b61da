"""The stream of labelled examples: all of them, once an epoch, with labels."""

import numpy as np
import pytest

from infoxlm_jax.data import loader, row_budget
from infoxlm_jax.data.labelled.examples import Examples, ExampleStore, Ragged
from infoxlm_jax.data.labelled_stream import LabelledStream
from infoxlm_jax.errors import InputError
from infoxlm_jax.special_ids import Ids

IDS = Ids(bos=0, pad=1, eos=2, unk=3, mask=999, size=1000)


def store(**sizes) -> ExampleStore:
  """Example n of a language is `<s>` n+10 ... `</s>`, with label n mod 7."""
  examples, first = {}, 10
  for language, count in sizes.items():
    tokens = [
      [IDS.bos, *[first + n] * (1 + n % 4), IDS.eos] for n in range(count)
    ]
    examples[language] = Examples(
      Ragged.of(tokens),
      np.array([(first + n) % 7 for n in range(count)], np.int32),
      {"token_labels": Ragged.of([[0, *t[1:-1], 0] for t in tokens])},
    )
    first += count
  return ExampleStore("here", examples, IDS)


STREAM = LabelledStream(
  batch=8, rows=4, row_length=16, arrays=("token_labels",)
)


def batches(stream, count, data, groups=2, local=None):
  drawn = loader.batches(
    {"examples": stream},
    data,
    seed=3,
    positions={"examples": 0},
    groups=groups,
    local_groups=local,
    steps=count,
    prefetch=0,
  )
  return [arrays["examples"] for arrays, _ in drawn]


def items(batch):
  """(first piece, label) of every item, read from the packed rows."""
  out = []
  for group in range(len(batch["tokens"])):
    for n, label in enumerate(batch["labels"][group]):
      own = batch["segments"][group] == n + 1
      tokens = batch["tokens"][group][own]
      assert tokens[0] == IDS.bos and tokens[-1] == IDS.eos
      assert (batch["token_labels"][group][own] == [0, *tokens[1:-1], 0]).all()
      out.append((int(tokens[1]), int(label)))
  return out


def test_an_epoch_has_every_example_once():
  data = store(en=24, de=16)
  seen = [item for batch in batches(STREAM, 5, data) for item in items(batch)]
  own = [item for item in seen if item[0] < 34]
  assert sorted(own) == [(n, n % 7) for n in sorted(dict(own))]
  assert {label == first % 7 for first, label in seen} == {True}
  # Languages are mixed in proportion to their examples.
  long = batches(STREAM, 200, data)
  share = np.mean([x[0] < 34 for batch in long for x in items(batch)])
  assert abs(share - 24 / 40) < 0.04  # three deviations of 1,600 draws


def test_hosts_build_the_same_batch():
  data = store(en=40)
  (whole,) = batches(STREAM, 1, data)
  for n in range(2):
    (own,) = batches(STREAM, 1, data, local=[n])
    for name, values in own.items():
      np.testing.assert_array_equal(values[0], whole[name][n])


def test_rows_are_chosen_and_shapes_are_known():
  data = store(en=40)
  free = LabelledStream(batch=8, row_length=16, arrays=("token_labels",))
  fitted, fits = row_budget.fit_all({"examples": free}, data, 2)
  assert fits["examples"].cut == 0
  (batch,) = batches(fitted["examples"], 1, data)
  shapes = fitted["examples"].shapes(2)
  assert {k: v.shape for k, v in batch.items()} == shapes


def test_spans_have_two_numbers():
  tokens = Ragged.of([[0, 5, 6, 2], [0, 7, 2]])
  spans = np.array([[1, 2], [1, 1]], np.int32)
  data = ExampleStore("here", {"en": Examples(tokens, spans)}, IDS)
  stream = LabelledStream(
    batch=2, rows=2, row_length=4, padded=True, label_size=2
  )
  (batch,) = batches(stream, 1, data, groups=1)
  assert batch["labels"].shape == stream.shapes(1)["labels"] == (1, 2, 2)
  lengths = (batch["segments"][0] > 0).sum(-1)
  assert (batch["labels"][0, :, 1] == lengths - 2).all()


def test_no_examples():
  with pytest.raises(InputError, match="at least one source"):
    batches(STREAM, 1, store())


def test_the_hash_names_everything_that_is_read():
  first = store(en=8).manifest_sha256
  assert first == store(en=8).manifest_sha256
  assert first != store(de=8).manifest_sha256
  changed = store(en=8)
  changed.examples["en"].labels[3] = 5
  assert first != changed.manifest_sha256
