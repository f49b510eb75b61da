"""Checkpoints come back bit for bit, or say which array does not."""

import doctest
import errno
import hashlib
import json
import shutil
from collections import deque
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from infoxlm_jax.checkpoint import checksums, metadata
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.model import partitioning
from infoxlm_jax.objectives import key_queue
from infoxlm_jax.objectives.contrast import Contrast, ContrastState
from infoxlm_jax.objectives.key_queue import Queue
from infoxlm_jax.training import state as train_state
from infoxlm_jax.training.state import TrainState

FILES = {"position.json": b'{"samples": {"mlm": 80}}', "tokenizer.model": b"t"}

MESH = partitioning.make_mesh(partitioning.MeshShape(data=4, fsdp=2))


def make_state(step: int, *, batch: int = 8, width: int = 64) -> TrainState:
  """A state of random arrays, laid out over eight devices as in training."""
  draw = np.random.default_rng(step)

  def normal(*shape: int) -> jax.Array:
    return jnp.asarray(draw.normal(size=shape), jnp.float32)

  params = {"embed": {"token": normal(512, width)}}
  state = TrainState(
    step=jnp.int32(step),
    params=params,
    opt_state=({"mu": normal(512, width)}, jnp.int32(step)),
    objective_state={
      "xlco": ContrastState(
        {"embed": {"token": normal(512, width)}},
        Queue(normal(4, batch, 16), jnp.int32(step)),
      )
    },
    rng=jnp.asarray([3, 4], jnp.uint32),
  )
  return jax.device_put(state, partitioning.shardings(state, MESH))


def abstract(state: TrainState) -> TrainState:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )


def assert_same_bits(found: TrainState, wanted: TrainState) -> None:
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(found),
    jax.tree_util.tree_leaves_with_path(wanted),
    strict=True,
  )
  for (path, a), (_, b) in pairs:
    assert a.dtype == b.dtype and a.sharding == b.sharding, path
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory) -> Path:
  """Checkpoints 5 and 10; nobody writes here."""
  folder = tmp_path_factory.mktemp("checkpoints") / "kept"
  with Checkpoints(folder) as checkpoints:
    checkpoints.save(make_state(5), FILES)
    checkpoints.save(make_state(10), FILES)
  return folder


@pytest.fixture
def copied(two_saved, tmp_path) -> Path:
  return Path(shutil.copytree(two_saved, tmp_path / "copy"))


def restore(folder: Path, like: TrainState):
  with Checkpoints(folder) as checkpoints:
    return checkpoints.restore(abstract(like))


def array_files(folder: Path, step: int) -> list[Path]:
  """The files that hold the arrays' bytes, without their index."""
  found = list((folder / str(step) / "state").rglob("d/*"))
  largest = max(p.stat().st_size for p in found)
  return sorted(p for p in found if p.stat().st_size == largest)


def flip(folder: Path, step: int, share: float) -> None:
  for path in array_files(folder, step):
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1 << 3
    path.write_bytes(bytes(content))


def test_comes_back_bit_for_bit(two_saved):
  state, files = restore(two_saved, make_state(0))
  assert_same_bits(state, make_state(10))
  assert files == FILES


def test_nothing_stored_is_none(tmp_path):
  assert restore(tmp_path / "new" / "folder", make_state(0)) is None


def test_saved_in_the_background_is_there_after_wait(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(make_state(3), FILES)
    checkpoints.wait()
    assert (tmp_path / "3" / "files" / "tokenizer.model").read_bytes() == b"t"


def test_hashes_are_those_of_the_files(two_saved):
  folder = two_saved / "10" / "files"
  sums = json.loads((folder / "checksums.json").read_text())
  assert sums["files"] == {
    name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for name in FILES
  }
  # The fingerprint once more, in numpy, for one array.
  token = np.asarray(make_state(10).params["embed"]["token"])
  bits = token.view(np.uint32).ravel().astype(object)
  wanted = [
    int(sum(b * ((i * f) % 2**32 | 1) for i, b in enumerate(bits)) % 2**32)
    for f in (0x9E3779B1, 0x85EBCA77)
  ]
  assert sums["arrays"]["params/embed/token"] == {
    "shape": [512, 64],
    "dtype": "float32",
    "sum": wanted,
  }


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32", "bfloat16"])
def test_every_flipped_bit_changes_the_fingerprint(dtype):
  size = jnp.dtype(dtype).itemsize
  flat = np.random.default_rng(0).integers(0, 255, (3, 5 * size), np.uint8)
  flipped = []
  for bit in range(8 * flat.size):
    copy = flat.copy()
    copy.ravel()[bit // 8] ^= 1 << bit % 8
    flipped.append(copy)
  stack = np.stack([flat, *flipped]).view(jnp.dtype(dtype))
  sums = np.asarray(jax.vmap(checksums.fingerprint)(jnp.asarray(stack)))
  assert (sums[1:] != sums[0]).all()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_flipped_bit_goes_back_to_the_checkpoint_before(copied, caplog, share):
  flip(copied, 10, share)
  state, files = restore(copied, make_state(0))
  assert_same_bits(state, make_state(5))
  assert files == FILES
  message = caplog.text
  assert str(copied / "10") in message and "one before" in message
  names = ("params/embed/token", "key_params/embed/token", "opt_state", "queue")
  assert any(name in message for name in names), message
  # Out of the way: updates 6 to 10 are done again and saved again.
  assert sorted(p.name for p in copied.iterdir()) == ["5", "damaged-10"]
  with Checkpoints(copied) as checkpoints:
    checkpoints.save(make_state(10), FILES)
  assert_same_bits(restore(copied, make_state(0))[0], make_state(10))


def test_orbax_alone_restores_flipped_bits(copied):
  """Why there are fingerprints; should this fail, orbax has learned it."""
  silent = 0
  for share in (0.25, 0.5, 0.75):
    flip(copied, 10, share)
    handler = ocp.StandardCheckpointHandler()
    with ocp.Checkpointer(handler) as checkpointer:
      try:
        state = checkpointer.restore(
          copied / "10" / "state",
          args=ocp.args.StandardRestore(abstract(make_state(0))),
        )
      except ValueError:
        continue
    same = jax.tree.map(
      lambda a, b: np.array_equal(a, b), state, make_state(10)
    )
    silent += not all(jax.tree.leaves(same))
  assert silent


def test_all_damaged_is_an_error_that_changes_nothing(copied):
  for step in (5, 10):
    flip(copied, step, 0.5)
  before = sorted(copied.rglob("*"))
  with pytest.raises(InputError, match=r"none of the checkpoints \[5, 10\]"):
    restore(copied, make_state(0))
  assert sorted(copied.rglob("*")) == before


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("files/position.json", b'{"samples": {"mlm": 81}}'),
    ("files/tokenizer.model", None),
    ("files/checksums.json", b"{"),
    ("state/manifest.ocdbt", b""),
  ],
)
def test_changed_file_goes_back_too(copied, caplog, name, content):
  path = copied / "10" / name
  if content is None:
    path.unlink()
  else:
    path.write_bytes(content)
  state, _ = restore(copied, make_state(0))
  assert_same_bits(state, make_state(5))
  assert str(copied / "10") in caplog.text


def test_another_format_is_named(copied):
  path = copied / "10" / "files" / "checksums.json"
  sums = json.loads(path.read_text()) | {"format": 99}
  path.write_text(json.dumps(sums))
  with pytest.raises(InputError, match="checkpoint format 99"):
    restore(copied, make_state(0))


def test_another_shape_names_array_and_both(two_saved):
  with pytest.raises(InputError) as caught:
    restore(two_saved, make_state(0, width=8))
  message = str(caught.value)
  assert "params/embed/token" in message
  assert "float32[512, 64]" in message and "float32[512, 8]" in message


def test_another_dtype_names_array_and_both(two_saved):
  like = make_state(0)
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), like.objective_state)
  half["xlco"] = half["xlco"].replace(queue=like.objective_state["xlco"].queue)
  with pytest.raises(InputError) as caught:
    restore(two_saved, like.replace(objective_state=half))
  message = str(caught.value)
  assert "key_params/embed/token" in message
  assert "float32[512, 64]" in message and "bfloat16[512, 64]" in message


def test_missing_and_additional_arrays_are_named(two_saved):
  like = make_state(0)
  more = like.params | {"heads": {"bias": jnp.zeros(3)}}
  with pytest.raises(InputError, match="params/heads/bias is absent in the c"):
    restore(two_saved, like.replace(params=more))
  with pytest.raises(
    InputError, match="key_params/embed/token is .* and absent in this"
  ):
    restore(two_saved, like.replace(objective_state={}))


def test_queue_of_another_batch_size_reslots(tmp_path):
  """The newest K keys stay the same, in the order they came."""
  size, batch = 30, 8
  queue, seen = key_queue.init(size, batch, 16), deque(maxlen=size)
  for push in range(5):
    keys = np.random.default_rng(push).normal(size=(batch, 16))
    queue = key_queue.push(queue, jnp.asarray(keys, jnp.float32))
    seen.extend(keys.astype(np.float32))
  stored = make_state(7)
  contrast = stored.objective_state["xlco"].replace(queue=queue)
  stored = stored.replace(objective_state={"xlco": contrast})
  stored = jax.device_put(stored, partitioning.shardings(stored, MESH))
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(stored, FILES, wait=True)
    like = abstract(make_state(0, batch=16))
    with pytest.raises(InputError, match="queue/keys is float32.4, 8, 16"):
      checkpoints.restore(like)
    objectives = {"xlco": Contrast(queue_size=size)}
    restored, _ = checkpoints.restore(like, train_state.resizable(objectives))
  assert restored.objective_state["xlco"].queue.keys.shape == (4, 8, 16)
  wanted = contrast.replace(queue=key_queue.init(size, 16, 16))
  wanted = jax.device_put(wanted, partitioning.shardings(wanted, MESH))
  resized = train_state.resized(
    restored, like.replace(objective_state={"xlco": wanted}), objectives
  )
  other = resized.objective_state["xlco"].queue
  assert other.keys.shape == (2, 16, 16)
  assert other.keys.sharding == wanted.queue.keys.sharding
  np.testing.assert_array_equal(key_queue.in_order(other, size), np.stack(seen))


def test_latest_and_best_by_separate_rules(tmp_path):
  """A worse metric never costs the newest, a bad number never the best."""
  nan, inf = float("nan"), float("inf")
  metrics = {1: 0.1, 2: 0.9, 3: 0.8, 4: 0.2, 5: nan, 6: None, 7: inf, 8: 0.1}
  with Checkpoints(tmp_path, keep_latest=2, keep_best=2) as checkpoints:
    for step, metric in metrics.items():
      checkpoints.save(make_state(step), FILES, metric=metric)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3, 7, 8]
  # The metrics outlive the process.
  with Checkpoints(tmp_path, keep_latest=2, keep_best=2) as checkpoints:
    checkpoints.save(make_state(9), FILES, metric=0.85)
    checkpoints.save(make_state(10), FILES)
    checkpoints.save(make_state(11), FILES)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 9, 10, 11]


def test_latest_alone(tmp_path):
  with Checkpoints(tmp_path, keep_latest=1, keep_best=0) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(make_state(step), FILES, metric=-float(step))
    checkpoints.wait()
    assert checkpoints.steps() == [3]
  with pytest.raises(InputError, match="keep_latest = 0"):
    Checkpoints(tmp_path, keep_latest=0)


def test_rest_of_a_killed_save_is_harmless(copied):
  rest = copied / "15.orbax-checkpoint-tmp"
  shutil.copytree(copied / "10", rest)
  (rest / "state" / "manifest.ocdbt").unlink()
  state, _ = restore(copied, make_state(0))
  assert_same_bits(state, make_state(10))


@pytest.mark.parametrize("below", ["", "below"])
def test_file_in_place_of_the_folder(tmp_path, below):
  file = tmp_path / "file"
  file.write_text("mine")
  with pytest.raises(InputError, match="cannot be used for checkpoints"):
    Checkpoints(file / below if below else file)
  assert file.read_text() == "mine"


def _full(*unused: object, **also_unused: object) -> None:
  raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_is_a_storage_error(copied, monkeypatch):
  """Orbax' own write of the small files fails, in its thread."""
  from infoxlm_jax.checkpoint.manager import FilesHandler

  with Checkpoints(copied) as checkpoints:
    with monkeypatch.context() as patch:
      patch.setattr(FilesHandler, "save", _full)
      with pytest.raises(StorageError, match="checkpoint 15 .*No space left"):
        checkpoints.save(make_state(15), FILES, wait=True)
    assert_same_bits(
      checkpoints.restore(abstract(make_state(0)))[0], make_state(10)
    )


def test_saving_a_step_twice_is_told(copied):
  with Checkpoints(copied) as checkpoints:
    with pytest.raises(StorageError, match="checkpoint 10 .*already exists"):
      checkpoints.save(make_state(10), FILES, wait=True)


def test_the_example_of_metadata() -> None:
  assert doctest.testmod(metadata) == (0, 1)
