"""Names of gin files and data resolve alike in a tree and in a wheel."""

import importlib
import sys
from pathlib import Path

import pytest

from infoxlm_jax import errors
from infoxlm_jax.runtime import resources


@pytest.fixture
def wheel_layout(tmp_path, monkeypatch):
  """An installed package: site-packages with the copy inside, foreign gin."""
  site = tmp_path / "site-packages"
  share = site / "infoxlm_jax" / "_share"
  (share / "gin" / "models").mkdir(parents=True)
  (share / "tasks" / "data").mkdir(parents=True)
  (share / "gin" / "quickstart.gin").write_text("# quickstart\n")
  (share / "gin" / "models" / "tiny.gin").write_text("# tiny\n")
  (share / "tasks" / "made_up.py").write_text("NAME = 'from the wheel'\n")
  # Others' folders beside the package must not be taken for ours.
  (site / "gin").mkdir()
  (site / "tasks").mkdir()
  monkeypatch.setattr(resources, "_PACKAGE", site / "infoxlm_jax")
  monkeypatch.setattr(sys, "path", list(sys.path))
  work = tmp_path / "work"
  work.mkdir()
  monkeypatch.chdir(work)
  return share


def test_share_root_of_this_tree_or_install():
  root = resources.share_root()
  assert (root / "gin").is_dir() and (root / "tasks").is_dir()
  assert not (root / "gin" / "__init__.py").exists()
  assert not (root / "tasks" / "__init__.py").exists()


def test_share_root_without_folders(tmp_path, monkeypatch):
  monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "infoxlm_jax")
  with pytest.raises(errors.InputError, match="install it again"):
    resources.share_root()


def test_installed_copy_wins_over_neighbours(wheel_layout):
  assert resources.share_root() == wheel_layout
  path = resources.find("gin/quickstart.gin")
  assert path == wheel_layout / "gin" / "quickstart.gin"
  assert resources.find("tasks/data").is_dir()


def test_current_folder_comes_first(wheel_layout):
  own = Path.cwd() / "gin" / "quickstart.gin"
  own.parent.mkdir()
  own.write_text("# mine\n")
  assert resources.find("gin/quickstart.gin") == own
  # A file that only the installation has is still found.
  assert resources.find("gin/models/tiny.gin").parent.parent.name == "gin"


def test_absolute_path(wheel_layout, tmp_path):
  file = tmp_path / "some.tsv"
  file.write_text("a\tb\n")
  assert resources.find(file) == file
  with pytest.raises(errors.InputError, match="Did you mean .*some.tsv"):
    resources.find(tmp_path / "sone.tsv")


@pytest.mark.parametrize(
  ("wrong", "right"),
  [
    ("gin/quickstrat.gin", "gin/quickstart.gin"),
    ("gin/quickstart", "gin/quickstart.gin"),
    ("quickstart.gin", "gin/quickstart.gin"),
    ("gin/tiny.gin", "gin/models/tiny.gin"),
    ("tasks/date", "tasks/data"),
  ],
)
def test_did_you_mean(wheel_layout, wrong, right):
  with pytest.raises(errors.InputError) as caught:
    resources.find(wrong)
  message = str(caught.value)
  assert f"Did you mean {right}?" in message
  # The message names both places that were searched.
  assert str(Path.cwd() / wrong) in message
  assert str(wheel_layout / wrong) in message


@pytest.mark.parametrize("wrong", ["", "zzz/qqqqq", "x" * 5000, "a\0b"])
def test_nothing_close(wheel_layout, wrong):
  with pytest.raises(errors.InputError) as caught:
    resources.find(wrong)
  assert "Did you mean" not in str(caught.value)


def test_tasks_import_from_anywhere(wheel_layout, monkeypatch):
  before = list(sys.path)
  for name in [n for n in sys.modules if n.partition(".")[0] == "tasks"]:
    monkeypatch.delitem(sys.modules, name)
  resources.add_tasks_path()
  resources.add_tasks_path()
  # Appended once, at the end: the installed package gin keeps its name.
  assert sys.path == [*before, str(wheel_layout)]
  module = importlib.import_module("tasks.made_up")
  assert module.NAME == "from the wheel"
  # Popped, so that later tests import the real folder `tasks`.
  for name in ("tasks.made_up", "tasks"):
    sys.modules.pop(name)
  import gin

  assert hasattr(gin, "parse_config")
