"""Finds gin files, seqio tasks and shipped data by the same name anywhere.

A name such as `gin/quickstart.gin` or `tasks/data/verses.tsv.gz` means the
same file in a source tree, in an editable install and in an installed wheel,
from any current folder. The wheel carries its copy of `gin/` and `tasks/` in
`infoxlm_jax/_share/` (see setup.py).
"""

import difflib
import os
import sys
from pathlib import Path

from infoxlm_jax import errors

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = ("gin", "tasks")


def share_root() -> Path:
  """Returns the folder that holds `gin/` and `tasks/`.

  The repository root in a source tree or an editable install, else the copy
  inside the installed package.

  Raises:
    errors.InputError: neither place holds both folders (a broken install).
  """
  # The copy comes first: site-packages, the package's parent in an installed
  # wheel, may hold folders named gin/ and tasks/ that belong to others.
  places = (_PACKAGE / "_share", _PACKAGE.parent)
  for place in places:
    if all((place / folder).is_dir() for folder in _FOLDERS):
      return place
  looked = " and ".join(str(place) for place in places)
  raise errors.InputError(
    f"The folders gin/ and tasks/ of infoxlm_jax are missing: looked in"
    f" {looked}. The installation is incomplete; install it again."
  )


def find(name: str | os.PathLike[str]) -> Path:
  """Finds an existing file or folder.

  Args:
    name: an absolute path, or a relative one, which is looked up in the
      current folder first and then in `share_root()`.

  Returns:
    The absolute path of the file or folder.

  Raises:
    errors.InputError: nothing is there. The message names the places looked
      in and, where there is one, the existing name that comes closest.
  """
  path = Path(os.path.expanduser(name))
  roots = [Path.cwd()]
  if path.is_absolute():
    candidates = [path]
  else:
    if (share := share_root()) not in roots:
      roots.append(share)
    candidates = [root / path for root in roots]
  for candidate in candidates:
    if str(name) and os.path.exists(candidate):
      return candidate
  looked = ", ".join(str(candidate) for candidate in candidates)
  close = _closest(path, roots)
  hint = f" Did you mean {close}?" if close else " Check the name."
  raise errors.InputError(
    f"There is no file or folder {str(name)!r}; looked for {looked}.{hint}"
  )


def add_tasks_path() -> None:
  """Makes `import tasks.verses` work from any current folder.

  `share_root()` is appended to `sys.path`, once. Appended, never put first:
  it holds a folder named gin/, and the installed package `gin` must win.
  """
  root = str(share_root())
  if root not in sys.path:
    sys.path.append(root)


def _closest(missing: Path, roots: list[Path]) -> str | None:
  """Returns the existing name most like `missing`, as one would type it."""
  names: list[str] = []
  for root in roots:
    entries = _entries((root / missing).parent)
    names += [str(missing.parent / entry) for entry in entries]
  if not missing.is_absolute():
    share = roots[-1]
    files = sorted((share / "gin").rglob("*.gin"))
    names += [str(file.relative_to(share)) for file in files]
  closest = difflib.get_close_matches(str(missing), names, n=1, cutoff=0.6)
  if not closest:
    # A right file name in a wrong folder, or without its folder or ending.
    by_stem = {Path(name).stem: name for name in reversed(names)}
    stems = difflib.get_close_matches(missing.stem, list(by_stem), 1, 0.75)
    closest = [by_stem[stem] for stem in stems]
  return closest[0] if closest else None


def _entries(folder: Path) -> list[str]:
  """Names of the files in a folder, [] where it is missing or unreadable."""
  try:
    return sorted(os.listdir(folder))
  except (OSError, ValueError):
    return []
