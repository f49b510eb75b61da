"""The wheel works from any folder, and metadata agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import small_model
import yaml

import infoxlm_jax

# What git does not hold, or what the wheel does not need.
_LEFT_OUT = (".*", "__pycache__", "build", "dist", "prepared", "*.egg-info")


def _files(root: Path, *folders: str) -> dict[str, bytes]:
  """Contents of all files in the folders, by path from root."""
  contents = {}
  for folder in folders:
    for file in sorted((root / folder).rglob("*")):
      path = file.relative_to(root)
      hidden = any(p == "__pycache__" or p.startswith(".") for p in path.parts)
      if file.is_file() and not hidden:
        contents[path.as_posix()] = file.read_bytes()
  return contents


def test_versions_agree(root):
  cited = yaml.safe_load((root / "CITATION.cff").read_text())
  assert cited["version"] == infoxlm_jax.__version__
  assert re.fullmatch(r"\d+\.\d+\.\d+", infoxlm_jax.__version__)


def test_top_level_folders_hide_no_package(root):
  # With an __init__.py the folder gin/ would hide gin-config.
  for folder in ("gin", "tasks"):
    assert (root / folder).is_dir()
    assert not list((root / folder).rglob("__init__.py"))
  assert not list((root / "gin").rglob("*.py"))


def test_constraints_cover_what_is_required(root):
  """Every direct dependency is pinned, at no less than its lower bound."""
  listed = _setup(root).partition("install_requires=[")[2].partition("]")[0]
  required = dict(
    re.findall(r'^\s+"([A-Za-z-]+)>=([\d.]+)",$', listed, re.MULTILINE)
  )
  assert len(required) >= 16
  files = sorted((root / "tools").glob("constraints-*.txt"))
  assert len(files) == 2
  for file in files:
    lines = [x for x in file.read_text().splitlines() if not x.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    for name, bound in required.items():
      assert _numbers(pinned[name.lower()]) >= _numbers(bound), (file, name)


def _setup(root: Path) -> str:
  return (root / "setup.py").read_text()


def _numbers(version: str) -> list[int]:
  return [int(part) for part in version.split(".")]


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory) -> Path:
  """A folder with the wheel installed, built by way of the source package."""
  tree = tmp_path_factory.mktemp("tree") / "repo"
  left_out = shutil.ignore_patterns(*_LEFT_OUT)

  def ignored(folder: str, names: list[str]) -> set[str]:
    # runs/ at the top is what jobs write; gin/runs/ belongs to the project.
    top = {"runs"} if Path(folder) == root else set()
    return left_out(folder, names) | top

  shutil.copytree(root, tree, ignore=ignored)
  # Must not travel: compiled files of Python, hidden files.
  (tree / "tasks" / "__pycache__").mkdir()
  (tree / "tasks" / "__pycache__" / "verses.pyc").write_bytes(b"old")
  (tree / "gin" / ".hidden").write_text("")
  sdist = tree / "dist" / _build(tree, "build_sdist")
  unpacked = tmp_path_factory.mktemp("sdist")
  shutil.unpack_archive(sdist, unpacked, filter="data")
  (source,) = unpacked.iterdir()
  wheel = source / "dist" / _build(source, "build_wheel")
  site = tmp_path_factory.mktemp("site")
  subprocess.run(
    [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    + ["--no-index", "--target", str(site), str(wheel)],
    check=True,
  )
  shutil.copy(wheel, site)
  return site


def _build(tree: Path, hook: str) -> str:
  """Calls a hook of the build backend; returns the file's name in dist/."""
  code = f"from setuptools import build_meta as b; print(b.{hook}('dist'))"
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=tree,
    check=True,
    capture_output=True,
    text=True,
  )
  return done.stdout.strip().splitlines()[-1]


@pytest.mark.slow
def test_wheel_holds_gin_and_tasks(root, installed):
  expected = _files(root, "gin", "tasks")
  share = installed / "infoxlm_jax" / "_share"
  assert _files(share, "gin", "tasks") == expected
  assert any(name.startswith("gin/") for name in expected)
  assert any(name.startswith("tasks/data/") for name in expected)
  (wheel,) = installed.glob("*.whl")
  names = zipfile.ZipFile(wheel).namelist()
  # Nothing at the top level but the package: no foreign gin/, no tests/.
  tops = {name.split("/")[0] for name in names}
  assert len(tops) == 2 and "infoxlm_jax" in tops
  assert not [n for n in names if "__pycache__" in n or "hidden" in n]
  assert "infoxlm_jax/py.typed" in names
  licenses = {n.split("/")[-1] for n in names if "/licenses/" in n}
  assert {"LICENSE", "NOTICE"} <= licenses
  modules = {n for n in _files(root, "infoxlm_jax") if n.endswith(".py")}
  assert modules <= set(names)


def _python(site: Path, folder: Path, *args: str) -> str:
  """Runs Python with the wheel, in a folder of its own; its output."""
  return _command(site, folder, sys.executable, *args)


def _command(site: Path, folder: Path, *command: str | Path) -> str:
  # In front of everything, an editable install of the repository included.
  env = dict(os.environ, PYTHONPATH=str(site), PYTHONSAFEPATH="1")
  done = subprocess.run(
    command,
    cwd=folder,
    env=env,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow
def test_wheel_finds_files_and_tasks(root, installed, tmp_path):
  """By the names that they have in the repository, from any folder."""
  (tmp_path / "check.py").write_text(
    """
import hashlib, importlib, sys
from pathlib import Path
import infoxlm_jax
from infoxlm_jax.runtime import resources

site, *names = sys.argv[1:]
assert Path(infoxlm_jax.__file__).is_relative_to(site), infoxlm_jax.__file__
for name in names:
  path = resources.find(name)
  assert path.is_relative_to(site), path
  print(name, hashlib.sha256(path.read_bytes()).hexdigest())
resources.add_tasks_path()
import gin
assert hasattr(gin, "parse_config"), gin
for name in names:
  if name.startswith("tasks/") and name.endswith(".py"):
    module = importlib.import_module(name[:-3].replace("/", "."))
    assert Path(module.__file__).is_relative_to(site), module.__file__
"""
  )
  import hashlib

  files = _files(root, "gin", "tasks")
  out = _python(installed, tmp_path, "check.py", str(installed), *files)
  expected = {n: hashlib.sha256(b).hexdigest() for n, b in files.items()}
  assert dict(line.split() for line in out.splitlines()) == expected


@pytest.mark.slow
def test_wheel_runs_the_quickstart_dry(installed, tmp_path):
  """The first screen's command, with includes and data, writes nothing."""
  command = ["-m", "infoxlm_jax.main", "--gin_file=gin/quickstart.gin"]
  out = _python(installed, tmp_path, *command, "--dry_run")
  assert "parameters" in out
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_wheel_installs_the_commands(root, installed, tmp_path):
  """Their scripts start the wheel's code, for each file that is a command."""
  files = {path.stem for path in (root / "infoxlm_jax" / "cli").glob("*.py")}
  names = {name.replace("_", "-") for name in files - {"__init__", "command"}}
  scripts = {path.name for path in (installed / "bin").iterdir()}
  assert scripts == {f"infoxlm-{name}" for name in names}
  assert {"infoxlm-export", "infoxlm-encode", "infoxlm-checkpoint"} < scripts
  for script in scripts:
    shown = _command(installed, tmp_path, installed / "bin" / script, "--help")
    assert shown.startswith(f"usage: {script} ")
  where = "import infoxlm_jax.cli.export as x; print(x.__file__)"
  file = Path(_python(installed, tmp_path, "-c", where).strip())
  assert file == installed / "infoxlm_jax" / "cli" / "export.py"
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_wheel_exports_and_encodes(installed, tmp_path):
  """A model becomes a folder for sentence-transformers, texts its vectors."""
  texts = ["Im Anfang war das Wort.", "", "In the beginning"]
  (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
  said = _command(
    *(installed, tmp_path, installed / "bin" / "infoxlm-export"),
    *("--checkpoint", small_model.folder(), "--output", "exported"),
    *("--format", "sentence-transformers", "--layer", "2"),
    *("--pooling", "mean_all", "--skip_comparison"),
  )
  assert "written: exported" in said
  said = _command(
    *(installed, tmp_path, installed / "bin" / "infoxlm-encode"),
    *("--model", "exported", "--pooling", "mean_all", "--normalize"),
    *("--input", "texts.txt", "--output", "vectors.npy"),
  )
  assert said == "written: vectors.npy (3 vectors of 32)\n"
  states = infoxlm_jax.load(small_model.folder()).hidden_states(texts)
  expected = np.stack([one[2].mean(0) for one in states])
  expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
  vectors = np.load(tmp_path / "vectors.npy")
  np.testing.assert_allclose(vectors, expected, atol=1e-6)
