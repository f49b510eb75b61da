"""Compares prepared data with the hashes that prepare recorded.

Each store's manifest has the hashes of its shards and of the tokenizer;
checksums.json has those of the other files that training reads:

    {"format": 1, "files": {"retrieval/dev.jsonl": "sha256 in hex", ...}}

So a file that was damaged or exchanged after it was written is an error, and
trains nothing with other ids.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from infoxlm_jax.data.manifest import MANIFEST, read_manifest
from infoxlm_jax.data.records import Store
from infoxlm_jax.data.tokenizers.base import Tokenizer, load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import limits, read_files

CHECKSUMS = "checksums.json"

_FORMAT = 1
_AGAIN = "Prepare the data again, or copy the folder from where it is whole."


def write_checksums(folder: Path, tokenizer: Tokenizer, request: str) -> None:
  """Writes checksums.json of a folder that is complete.

  Args:
    folder: prepared data.
    tokenizer: whose files are in it.
    request: name of the file with the request.
  """
  names = [*tokenizer.files, request, *_retrieval(folder)]
  names += [f"{store.name}/{MANIFEST}" for store in _stores(folder)]
  files = {name: _sha256(folder / name) for name in sorted(names)}
  text = json.dumps({"format": _FORMAT, "files": files}, indent=1) + "\n"
  (folder / CHECKSUMS).write_text(text, "utf-8")


def verify(folder: Path, most: int | None = None) -> list[str]:
  """Compares all files that training reads with their hashes.

  Args:
    folder: prepared data.
    most: bytes of a store's records; of a larger store only the sizes of its
      files are compared. None: all are compared.

  Returns:
    What could not be compared, a sentence each: files without a recorded
    hash, and larger stores.

  Raises:
    InputError: a file differs from its hash, or is missing.
  """
  notes = _verify_listed(folder)
  for path in _stores(folder):
    store = Store(path)
    if most is None or store.size <= most:
      store.verify()
    else:
      notes.append(
        f"{path} has {store.size:,} bytes of records: only their sizes were"
        f" compared with the manifest; {limits.VERIFIED.variable} = {most:,} is"
        " the most for which hashes are compared, too."
      )
  return notes + check_tokenizer(folder, load_tokenizer(folder))


def check_tokenizer(folder: Path, tokenizer: Tokenizer) -> list[str]:
  """Compares the tokenizer with the one that made the records.

  Args:
    folder: prepared data.
    tokenizer: read from it.

  Returns:
    A sentence for each store whose manifest records no hash.

  Raises:
    InputError: they differ.
  """
  notes = []
  for path in _stores(folder):
    recorded = read_manifest(path).tokenizer_sha256
    if not recorded:
      notes.append(f"{path / MANIFEST} records no hash of the tokenizer.")
    elif recorded != tokenizer.sha256:
      raise InputError(
        f"{tokenizer.path}: the tokenizer has the hash {tokenizer.sha256[:12]},"
        f" but {path / MANIFEST} records {recorded[:12]}: the file was changed"
        " or damaged after the records were made with it, so ids would mean"
        f" other pieces. {_AGAIN}"
      )
  return notes


def _verify_listed(folder: Path) -> list[str]:
  path = folder / CHECKSUMS
  if not os.path.exists(path):
    return [
      f"{folder / name} has no recorded hash to compare it with: an older"
      f" version prepared it, without {CHECKSUMS}."
      for name in _retrieval(folder)
    ]
  listed = read_files.read_object(path, {"format": int, "files": dict})
  if listed["format"] != _FORMAT:
    raise InputError(
      f"{path} has format {listed['format']}, this version reads {_FORMAT}:"
      " prepare the data again with it."
    )
  for name, sha256 in listed["files"].items():
    file = folder / read_files.check_inside(name, path)
    if _sha256(file) != sha256:
      raise InputError(
        f"{file} has changed since it was prepared: its hash is not the one in"
        f" {path}. {_AGAIN}"
      )
  missing = sorted(set(_retrieval(folder)) - set(listed["files"]))
  return [f"{folder / name} has no hash in {CHECKSUMS}." for name in missing]


def _stores(folder: Path) -> Iterator[Path]:
  """Folders of records."""
  for path in sorted(folder.iterdir()):
    if (path / MANIFEST).is_file():
      yield path


def _retrieval(folder: Path) -> list[str]:
  names = sorted((folder / "retrieval").glob("*.jsonl"))
  return [f"retrieval/{path.name}" for path in names]


def _sha256(path: Path) -> str:
  try:
    return read_files.sha256_of(path)
  except OSError as error:
    raise InputError(
      f"cannot read {path}, which {CHECKSUMS} lists: {error.strerror}. {_AGAIN}"
    ) from error
