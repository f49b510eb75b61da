"""Files and folders that appear whole or not at all."""

import errno
import subprocess
import sys

import pytest

from infoxlm_jax.errors import InputError, StorageError
from infoxlm_jax.runtime.files import (
  atomic_file,
  atomic_folder,
  check_new,
  write_atomically,
)

FULL = OSError(errno.ENOSPC, "No space left on device")


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_text_and_bytes(tmp_path):
  write_atomically(tmp_path / "new" / "a.txt", "é\n")
  write_atomically(tmp_path / "new" / "a.txt", "è\n")
  write_atomically(str(tmp_path / "new" / "b.bin"), b"\xff\0")
  assert (tmp_path / "new" / "a.txt").read_bytes() == b"\xc3\xa8\n"
  assert (tmp_path / "new" / "b.bin").read_bytes() == b"\xff\0"
  assert names(tmp_path / "new") == ["a.txt", "b.bin"]


def test_the_old_file_stands_until_the_end(tmp_path):
  path = tmp_path / "a"
  path.write_text("old")
  with atomic_file(path) as file:
    file.write(b"new")
    file.flush()
    assert path.read_text() == "old"
  assert path.read_text() == "new"


@pytest.mark.parametrize(
  ("error", "raised"),
  [
    (FULL, StorageError),
    (ValueError(), ValueError),
    (KeyboardInterrupt(), KeyboardInterrupt),
  ],
)
def test_after_an_error_nothing_is_left(tmp_path, error, raised):
  path, folder = tmp_path / "a", tmp_path / "folder"
  path.write_text("old")
  with pytest.raises(raised) as told, atomic_file(path) as file:
    file.write(b"half")
    raise error
  if error is FULL:
    assert str(told.value).startswith(f"{path}: could not be written: ")
    assert "No space left" in str(told.value)
  with pytest.raises(raised), atomic_folder(folder) as part:
    (part / "x").write_text("half")
    raise error
  assert names(tmp_path) == ["a"]
  assert path.read_text() == "old"


def test_no_folder_to_write_into(tmp_path):
  (tmp_path / "file").write_text("")
  with (
    pytest.raises(StorageError, match="file/a: could not be written"),
    atomic_file(tmp_path / "file" / "a"),
  ):
    raise AssertionError("not reached")
  with (
    pytest.raises(InputError, match="file/a: cannot be written: Not a dir"),
    atomic_folder(tmp_path / "file" / "a"),
  ):
    raise AssertionError("not reached")


def test_a_folder(tmp_path):
  output = tmp_path / "above" / "folder"
  with atomic_folder(output) as part:
    (part / "x").write_text("1")
    assert not output.exists()
  assert names(tmp_path / "above") == ["folder"]
  assert (output / "x").read_text() == "1"


def test_a_folder_never_replaces(tmp_path):
  output = tmp_path / "folder"
  output.mkdir()
  with pytest.raises(InputError, match="exists"), atomic_folder(output):
    raise AssertionError("not reached")
  output.rmdir()
  with pytest.raises(InputError, match="exists"), atomic_folder(output):
    output.mkdir()  # by somebody else meanwhile; a rename would replace it
  assert names(tmp_path) == ["folder"] and not names(output)
  (tmp_path / "link").symlink_to("nowhere")
  with pytest.raises(InputError, match="link exists: move it away"):
    check_new(tmp_path / "link")


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
  (tmp_path / "a").write_text("old")
  code = (
    "import os, sys\n"
    "from infoxlm_jax.runtime.files import atomic_file\n"
    "with atomic_file(sys.argv[1]) as file:\n"
    "  file.write(b'half'); file.flush(); os._exit(9)\n"
  )
  done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")])
  assert done.returncode == 9
  assert (tmp_path / "a").read_text() == "old"
  (part,) = set(names(tmp_path)) - {"a"}
  assert part.startswith(".a.") and part.endswith(".part")
