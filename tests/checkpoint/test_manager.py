"""Checkpoints come back bit for bit, or say which array does not."""

import doctest
import errno
import hashlib
import json
import shutil
import threading
from collections import deque
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from infoxlm_jax.checkpoint import checksum_file, checksums, metadata
from infoxlm_jax.checkpoint.manager import Checkpoints
from infoxlm_jax.checkpoint.retention import Retention
from infoxlm_jax.checkpoint.small_files import FilesHandler
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


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_damaged_index_goes_back_too(copied, caplog, share):
  index = copied / "10" / "state" / "manifest.ocdbt"
  content = bytearray(index.read_bytes())
  content[int(share * len(content))] ^= 1
  index.write_bytes(content)
  state, _ = restore(copied, make_state(0))
  assert_same_bits(state, make_state(5))
  assert f"{copied / '10'}: cannot be read" in caplog.text


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


def rewrite_list(folder: Path, step: int, own: bool = True, **changes) -> None:
  """Changes entries of checksums.json; `own`: with the checksum of the rest."""
  path = folder / str(step) / "files" / "checksums.json"
  entries = json.loads(path.read_text()) | changes
  del entries["sha256"]
  if own:
    text = json.dumps(entries, indent=1).encode()
    entries["sha256"] = hashlib.sha256(text).hexdigest()
  path.write_text(json.dumps(entries, indent=1))


def test_a_later_format_is_named(copied):
  rewrite_list(copied, 10, format=99)
  with pytest.raises(InputError, match="checkpoint format 99"):
    restore(copied, make_state(0))
  assert sorted(p.name for p in copied.iterdir()) == ["10", "5"]


def test_every_flipped_bit_of_the_list_is_found(two_saved):
  """Whatever becomes of a key, a number or a hash; none crashes a reader."""
  whole = (two_saved / "10" / "files" / "checksums.json").read_bytes()
  assert checksum_file.read({"checksums.json": whole}, "it").is_checked
  for at in range(8 * len(whole)):
    flipped = bytearray(whole)
    flipped[at // 8] ^= 1 << at % 8
    try:
      same = checksum_file.read({"checksums.json": bytes(flipped)}, "it")
    except checksum_file.Damaged as error:
      assert "it: checksums.json" in str(error)
    else:  # one kind of white space became another
      assert json.loads(bytes(flipped)) == json.loads(whole), at
      assert same.is_checked


@pytest.mark.parametrize(
  "content", [b"", b"[1]", b"\xff", b"[" * 100_000, b'{"format": 2}', b"null"]
)
def test_no_list_is_damage(content):
  with pytest.raises(checksum_file.Damaged, match="it: checksums.json"):
    checksum_file.read({"checksums.json": content}, "it")


@pytest.mark.parametrize("old", [b'"params/embed/token"', b"512", b'"files"'])
def test_a_flipped_bit_in_the_list_goes_back_too(copied, caplog, old):
  """These were "belongs to another model", twice, and a KeyError."""
  path = copied / "10" / "files" / "checksums.json"
  content = path.read_bytes()
  assert old in content
  new = old[:-2] + bytes([old[-2] ^ 1]) + old[-1:]
  path.write_bytes(content.replace(old, new, 1))
  state, _ = restore(copied, make_state(0))
  assert_same_bits(state, make_state(5))
  assert f"{copied / '10'}: checksums.json is not what was saved" in caplog.text
  assert (copied / "damaged-10").is_dir()


def test_a_list_without_its_own_checksum_is_read(copied, caplog):
  """As checkpoints were written until now; there a bit may be wrong, too."""
  rewrite_list(copied, 5, own=False)
  rewrite_list(copied, 10, own=False)
  assert_same_bits(restore(copied, make_state(0))[0], make_state(10))
  path = copied / "10" / "files" / "checksums.json"
  path.write_bytes(path.read_bytes().replace(b"embed/token", b"embed/tokeo", 1))
  assert_same_bits(restore(copied, make_state(0))[0], make_state(5))
  assert "embed/token is absent in the checkpoint" in caplog.text


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


@pytest.mark.parametrize(
  ("shape", "devices", "zero1", "parts"),
  [
    (partitioning.MeshShape(data=1), 1, False, (1, 1, 1)),
    (partitioning.MeshShape(data=2, fsdp=2, tensor=2), 8, False, (4, 8, 1)),
    (partitioning.MeshShape(data=4, fsdp=2), 8, True, (2, 8, 8)),
  ],
)
def test_restores_onto_another_mesh_and_mode(
  two_saved, shape, devices, zero1, parts
):
  """The numbers are numpy's; `parts` are of table, queue and moments."""
  mesh = partitioning.make_mesh(shape, jax.devices()[:devices])
  like = make_state(0)
  like = jax.device_put(like, partitioning.shardings(like, mesh, zero1))
  state, _ = restore(two_saved, like)
  draw = np.random.default_rng(10)
  contrast = state.objective_state["xlco"]
  token, mu = state.params["embed"]["token"], state.opt_state[0]["mu"]
  for array in (
    token,
    mu,
    contrast.key_params["embed"]["token"],
    contrast.queue.keys,
  ):
    wanted = draw.normal(size=array.shape).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(array), wanted)
  assert int(contrast.queue.pushes) == int(state.step) == 10
  assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(
    lambda x: x.sharding, like
  )
  for array, number in zip(
    (token, contrast.queue.keys, mu), parts, strict=True
  ):
    assert array.addressable_data(0).size * number == array.size


@pytest.mark.parametrize(
  ("new_size", "new_batch", "kept"),
  [(30, 16, 30), (12, 8, 12), (50, 8, 32)],
)
def test_queue_of_another_batch_or_size_reslots(
  tmp_path, caplog, new_size, new_batch, kept
):
  """The newest keys stay the same, in the order they came.

  A longer queue begins with all 32 keys that the stored slots hold.
  """
  size, batch = 30, 8
  queue, seen = key_queue.init(size, batch, 16), deque(maxlen=kept)
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
    like = abstract(make_state(0, batch=new_batch))
    if new_batch != batch:
      with pytest.raises(InputError, match="queue/keys is float32.4, 8, 16"):
        checkpoints.restore(like)
    objectives = {"xlco": Contrast(queue_size=new_size)}
    restored, _ = checkpoints.restore(like, train_state.resizable(objectives))
  assert restored.objective_state["xlco"].queue.keys.shape == (4, 8, 16)
  wanted = contrast.replace(queue=key_queue.init(new_size, new_batch, 16))
  wanted = jax.device_put(wanted, partitioning.shardings(wanted, MESH))
  resized = train_state.resized(
    restored, like.replace(objective_state={"xlco": wanted}), objectives
  )
  other = resized.objective_state["xlco"].queue
  assert other.keys.shape == (-(-new_size // new_batch), new_batch, 16)
  assert other.keys.sharding == wanted.queue.keys.sharding
  np.testing.assert_array_equal(key_queue.in_order(other, kept), np.stack(seen))
  assert "queue of xlco is another size" in caplog.text


def test_latest_and_best_by_separate_rules(tmp_path):
  """A worse metric never costs the newest, a bad number never the best."""
  nan, inf = float("nan"), float("inf")
  metrics = {1: 0.1, 2: 0.9, 3: 0.8, 4: 0.2, 5: nan, 6: None, 7: inf, 8: 0.1}
  with Checkpoints(tmp_path, Retention(2, 2)) as checkpoints:
    for step, metric in metrics.items():
      checkpoints.save(make_state(step), FILES, metric=metric)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3, 7, 8]
  # The metrics outlive the process.
  with Checkpoints(tmp_path, Retention(2, 2)) as checkpoints:
    checkpoints.save(make_state(9), FILES, metric=0.85)
    checkpoints.save(make_state(10), FILES)
    checkpoints.save(make_state(11), FILES)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 9, 10, 11]


def test_latest_alone(tmp_path):
  with Checkpoints(tmp_path, Retention(1, 0)) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(make_state(step), FILES, metric=-float(step))
    checkpoints.wait()
    assert checkpoints.steps() == [3]
  with pytest.raises(InputError, match="keep_latest = 0"):
    Retention(latest=0)


def test_every_third_for_ever_and_the_lowest(tmp_path):
  """A loss is best where it is lowest; metrics of other names do not count."""
  with Checkpoints(tmp_path, Retention(1, 1)) as checkpoints:
    checkpoints.save(make_state(1), FILES, metric=-9.0, wait=True)
  rules = Retention(1, 1, every=3, metric="dev/loss", lowest=True)
  with Checkpoints(tmp_path, rules) as checkpoints:
    losses = {3: 5.0, 4: 2.0, 5: 3.0, 6: 4.0, 7: float("-inf"), 8: None}
    for step, loss in losses.items():
      checkpoints.save(make_state(step), FILES, metric=loss)
    checkpoints.wait()
    assert checkpoints.steps() == [3, 4, 6, 8]
  with pytest.raises(InputError, match="keep_every = 0"):
    Retention(every=0)


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


def failing(times: int):
  """A FilesHandler.save that fails so often: the disk is full for a while."""
  save, left = FilesHandler.save, [times]

  def one(handler: FilesHandler, directory, args) -> None:
    if left[0]:
      left[0] -= 1
      raise OSError(errno.ENOSPC, "No space left on device")
    save(handler, directory, args)

  return one


def test_full_disk_is_a_storage_error(copied, monkeypatch):
  """Orbax' own write of the small files fails, in its thread."""
  with Checkpoints(copied) as checkpoints:
    with monkeypatch.context() as patch:
      patch.setattr(FilesHandler, "save", failing(2))
      with pytest.raises(StorageError, match="checkpoint 15 .*No space left"):
        checkpoints.save(make_state(15), FILES, wait=True)
    assert_same_bits(
      checkpoints.restore(abstract(make_state(0)))[0], make_state(10)
    )


@pytest.mark.parametrize("method", ["__init__", "close"])
def test_orbax_fails_beside_a_save(copied, monkeypatch, method):
  """Whatever it does when the disk is full, the error is of storage."""

  def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    with pytest.raises(StorageError, match="No space left"):
      with Checkpoints(copied) as checkpoints:
        patch.setattr(ocp.CheckpointManager, method, full)
        if method == "__init__":
          patch.setattr(FilesHandler, "save", failing(1))
          checkpoints.save(make_state(15), FILES, wait=True)
  assert_same_bits(restore(copied, make_state(0))[0], make_state(10))


@pytest.mark.parametrize("wait", [True, False])
def test_a_failed_save_is_tried_once_more(copied, monkeypatch, caplog, wait):
  """In the background a failure shows at the save after it."""
  monkeypatch.setattr(FilesHandler, "save", failing(1))
  with Checkpoints(copied) as checkpoints:
    checkpoints.save(make_state(15), FILES, wait=wait)
    checkpoints.save(make_state(20), FILES, wait=True)
    steps = checkpoints.steps()
  assert 20 in steps and "trying once more" in caplog.text
  assert sorted(p.name for p in copied.iterdir()) == sorted(map(str, steps))
  assert_same_bits(restore(copied, make_state(0))[0], make_state(20))
  assert (15 in steps) or not wait


def test_two_failures_in_the_background_end_the_run(copied, monkeypatch):
  """The second try is waited for, so a full disk does not pass for ever."""
  monkeypatch.setattr(FilesHandler, "save", failing(2))
  with pytest.raises(StorageError, match="checkpoint 20 .*No space left"):
    with Checkpoints(copied) as checkpoints:
      checkpoints.save(make_state(15), FILES)
      checkpoints.save(make_state(20), FILES)
  assert_same_bits(restore(copied, make_state(0))[0], make_state(10))


def test_a_save_waits_for_the_one_before(copied, monkeypatch):
  """So a kill never costs the updates of two intervals."""
  handler, may_go = ocp.StandardCheckpointHandler, threading.Event()
  finalize = handler.finalize

  def slow(self, directory) -> None:
    may_go.wait(20)
    finalize(self, directory)

  monkeypatch.setattr(handler, "finalize", slow)
  with Checkpoints(copied, Retention(9)) as checkpoints:
    checkpoints.save(make_state(15), FILES)
    assert not (copied / "15").exists()
    timer = threading.Timer(0.5, may_go.set)
    timer.start()
    checkpoints.save(make_state(20), FILES)
    assert (copied / "15" / "files" / "checksums.json").exists()
    timer.join()


def test_saving_a_step_twice_is_told(copied):
  with Checkpoints(copied) as checkpoints:
    with pytest.raises(StorageError, match="checkpoint 10 .*already exists"):
      checkpoints.save(make_state(10), FILES, wait=True)


def test_the_example_of_metadata() -> None:
  assert doctest.testmod(metadata) == (0, 1)
