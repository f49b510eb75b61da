"""Batches: the same whatever the host, the threads and the interruptions."""

import hashlib
import itertools
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
import small_corpus

from infoxlm_jax.data import loader
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.streams import ContrastStream, PairStream, TextStream
from infoxlm_jax.errors import InputError

GROUPS = 4
STREAMS = {
  "mlm": TextStream(batch=8, rows=8, row_length=72),
  "tlm": PairStream(batch=4, rows=4, row_length=96),
  "xlco": ContrastStream(batch=12, rows=16, row_length=64, mixup="random"),
}
START = {"mlm": 0, "tlm": 0, "xlco": 0}


@pytest.fixture(scope="module")
def store():
  return Store(small_corpus.prepared() / "train")


def run(store, steps=10, positions=START, **options):
  options = {"seed": 3, "groups": GROUPS} | options
  return list(
    loader.batches(STREAMS, store, positions=positions, steps=steps, **options)
  )


def digest(tree):
  out = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    out.update(f"{path}{leaf.shape}{leaf.dtype}".encode() + leaf.tobytes())
  return out.hexdigest()


def digests(found):
  return [(digest(batch), stats) for batch, stats in found]


@pytest.fixture(scope="module")
def unbroken(store):
  batches = run(store)
  assert len(batches) == 10
  return batches


def test_shapes(unbroken):
  batch, stats = unbroken[0]
  expected = loader.abstract(STREAMS, GROUPS)
  assert jax.tree.map(lambda a: a.shape, batch) == expected
  assert expected["mlm"]["tokens"] == (4, 2, 72)
  assert all(a.dtype == np.int32 for a in jax.tree.leaves(batch))
  assert stats["mlm"]["items"] == 8 and stats["xlco"]["items"] == 12
  assert len({digest(b) for b, _ in unbroken}) == 10


def test_resumed_anywhere(store, unbroken):
  whole = digests(unbroken)
  for step in (1, 4, 9):
    now = {name: step * s.batch for name, s in STREAMS.items()}
    assert digests(run(store, 10 - step, now)) == whole[step:]


@pytest.mark.parametrize("hosts", [2, 4])
def test_any_number_of_hosts(store, unbroken, hosts):
  each = GROUPS // hosts
  parts = [
    run(store, local_groups=range(host * each, (host + 1) * each))
    for host in range(hosts)
  ]
  for step, (batch, stats) in enumerate(unbroken):
    joined = jax.tree.map(
      lambda *x: np.concatenate(x), *(part[step][0] for part in parts)
    )
    assert digest(joined) == digest(batch)
    assert stats.keys() == STREAMS.keys()
    for name, counts in stats.items():
      assert counts["items"] == STREAMS[name].batch
      for key, count in counts.items():
        assert count == sum(part[step][1][name][key] for part in parts)


LONG = {
  "mlm": TextStream(batch=4, rows=4, row_length=72),
  "tlm": PairStream(batch=4, rows=4, row_length=96),
  "xlco": ContrastStream(batch=4, rows=8, row_length=96, mixup="random"),
}


def hashes(store, first, steps, groups=(0, 1, 2, 3)):
  """{(step, group): hash} of all streams."""
  drawn = loader.batches(
    LONG,
    store,
    seed=5,
    positions={name: first * s.batch for name, s in LONG.items()},
    groups=GROUPS,
    local_groups=groups,
    steps=steps,
    prefetch=0,
  )
  found = {}
  for step, (batch, _) in enumerate(drawn, first):
    leaves = jax.tree.leaves(batch)
    for n, group in enumerate(groups):
      whole = b"".join(leaf[n].tobytes() for leaf in leaves)
      found[step, group] = hashlib.sha256(whole).digest()
  return found


@pytest.mark.slow
def test_a_thousand_steps_however_they_are_read(store):
  """Unbroken, resumed twice, and by 2 and 4 hosts: the same hashes."""
  unbroken = hashes(store, 0, 1000)
  assert len(unbroken) == len(set(unbroken.values())) == 4000
  resumed = (
    hashes(store, 0, 333) | hashes(store, 333, 401) | hashes(store, 734, 266)
  )
  assert resumed == unbroken
  for hosts in (2, 4):
    each = GROUPS // hosts
    parts = {}
    for host in range(hosts):
      own = range(host * each, (host + 1) * each)
      parts |= hashes(store, 0, 1000, tuple(own))
    assert parts == unbroken


@pytest.mark.parametrize(("prefetch", "threads"), [(0, 1), (2, 1), (8, 3)])
def test_any_number_of_threads(store, unbroken, prefetch, threads):
  found = run(store, prefetch=prefetch, threads=threads)
  assert digests(found) == digests(unbroken)


def test_one_batch(store, unbroken):
  positions = {name: 2 * s.batch for name, s in STREAMS.items()}
  batch = loader.build(
    STREAMS, store, seed=3, positions=positions, groups=GROUPS
  )
  assert digests([batch]) == digests(unbroken[2:3])


def test_items_do_not_depend_on_the_number_of_groups(store):
  """Another grouping packs otherwise, and holds the same items."""

  def contents(groups):
    found = run(store, steps=3, groups=groups)
    return [
      sorted(
        rows["tokens"][g][rows["segments"][g] == n].tobytes()
        for g in range(groups)
        for n in range(1, rows["segments"][g].max() + 1)
      )
      for batch, _ in found
      for rows in (batch["mlm"], batch["xlco"]["query"])
    ]

  # Rows are wide enough here that nothing is cut.
  wide = {
    "mlm": TextStream(batch=8, rows=8, row_length=144),
    "xlco": ContrastStream(batch=12, rows=12, row_length=200),
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(globals(), "STREAMS", wide)
    whole = contents(1)
    assert [len(items) for items in whole] == [8, 12] * 3
    assert whole == contents(2) == contents(4)


def test_seeds_and_names_draw_unlike(store, unbroken):
  other = run(store, steps=1, seed=4)[0][0]
  for name in STREAMS:
    assert digest(other[name]) != digest(unbroken[0][0][name])
  twins = {"one": STREAMS["tlm"], "two": STREAMS["tlm"]}
  batch, _ = loader.build(
    twins, store, seed=3, positions={"one": 0, "two": 0}, groups=1
  )
  assert digest(batch["one"]) != digest(batch["two"])
  assert loader.stream_seed(3, "tlm") != loader.stream_seed(4, "tlm")


def test_closing_early(store):
  before = threading.active_count()
  start = time.monotonic()
  endless = loader.batches(
    STREAMS, store, seed=0, positions=START, groups=1, threads=2
  )
  assert len(list(itertools.islice(endless, 3))) == 3
  endless.close()
  assert time.monotonic() - start < 20
  deadline = time.monotonic() + 10
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() <= before


def test_no_steps(store):
  assert run(store, steps=0) == []


@pytest.mark.parametrize("prefetch", [0, 4])
def test_errors_of_the_threads_arrive(store, prefetch):
  streams = {"x": TextStream(batch=1, rows=1, row_length=9, languages=["it"])}
  drawn = loader.batches(
    streams, store, seed=0, positions={"x": 0}, groups=1, prefetch=prefetch
  )
  with pytest.raises(InputError, match="names 'it'"):
    next(drawn)


def test_bad_options_are_told_at_the_call(store):
  with pytest.raises(InputError, match="TextStream.batch = 8 .* 3 groups"):
    loader.batches(STREAMS, store, seed=0, positions=START, groups=3)
  with pytest.raises(InputError, match="no position .*'xlco'"):
    loader.batches(
      STREAMS, store, seed=0, positions={"mlm": 0, "tlm": 0}, groups=4
    )


def test_training_imports_no_tensorflow(root, plain_env, tmp_path):
  """A whole run from prepared records, evaluation and report included."""
  code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(root / "tests")!r})
import small_run
from infoxlm_jax.training import pretrain
options = small_run.options(Path({str(tmp_path / "run")!r}), steps=1)
del options["objectives"]["xlco"]
pretrain.pretrain(**options)
slow = {{"tensorflow", "seqio", "tensorflow_datasets"}} & set(sys.modules)
assert not slow, slow
"""
  subprocess.run(
    [sys.executable, "-c", code],
    env=plain_env | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    cwd=root,
    check=True,
    timeout=300,
  )
  assert (tmp_path / "run" / "results.json").exists()
