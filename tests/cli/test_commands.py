"""Every command: help, one-line errors, exit codes."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infoxlm_jax.cli import command
from infoxlm_jax.errors import InputError, StorageError

ROOT = Path(__file__).resolve().parents[2]
# The arguments that each command must have.
NEEDED = {
  "checkpoint": "list absent",
  "doctor": "",
  "encode": "--model absent --input absent --output absent.npy",
  "export": "--checkpoint absent --format hf --output absent",
  "import_checkpoint": "--input absent --output absent",
  "inspect_data": "--data absent",
  "train_tokenizer": "--input absent.txt --output absent",
}
COMMANDS = tuple(NEEDED)
# Packages that take long to import, or that begin to use a device. jax's
# backends are in jaxlib, so none can be started without it.
SLOW = (
  "flax", "grain", "jax", "jaxlib", "matplotlib", "optax", "orbax",
  "sentencepiece", "seqio", "tensorflow", "tensorflow_datasets", "tokenizers",
  "torch", "transformers",
)  # fmt: skip
# Runs a module as `python -m` does; the last line is what it imported.
PROBE = """
import json, runpy, sys
module, *arguments = sys.argv[1:]
sys.argv = [module, *arguments]
try:
  runpy.run_module(module, run_name="__main__", alter_sys=True)
  code = 0
except SystemExit as exit:
  code = exit.code
print()
print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""


def _run(*command, cwd=ROOT) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [sys.executable, *map(str, command)],
    cwd=cwd,
    capture_output=True,
    text=True,
    check=True,
  )


def test_every_file_is_a_command_or_what_they_share():
  files = {path.stem for path in Path(command.__file__).parent.glob("*.py")}
  assert files == {"__init__", "command", *COMMANDS}


@pytest.mark.parametrize(
  "module", ["main", *(f"cli.{name}" for name in COMMANDS)]
)
def test_help_starts_no_backend_and_imports_nothing_slow(module):
  done = _run("-c", PROBE, f"infoxlm_jax.{module}", "--help")
  *text, last = done.stdout.splitlines()
  result = json.loads(last)
  assert result["code"] == 0 and done.stderr == ""
  assert not {name.partition(".")[0] for name in result["modules"]} & set(SLOW)
  assert text[0].startswith("usage: ")
  # Some packages it does import, so the list is not empty by mistake.
  assert {"argparse", "infoxlm_jax.errors"} <= set(result["modules"])


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_examples_defaults_and_exit_codes(name, capsys, monkeypatch):
  monkeypatch.setenv("COLUMNS", "80")
  main = importlib.import_module(f"infoxlm_jax.cli.{name}").main
  with pytest.raises(SystemExit) as exit:
    main(["--help"])
  assert exit.value.code == 0
  text = capsys.readouterr().out
  script = f"infoxlm-{name.replace('_', '-')}"
  assert text.startswith(f"usage: {script} ")
  assert re.search(f"\n  {script} (--|list )", text)  # an example
  assert "default: " in text or name == "checkpoint"  # which has no options
  assert "  2 bad input" in text
  assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_missing_and_unknown_arguments_are_one_line(name, refused):
  main = importlib.import_module(f"infoxlm_jax.cli.{name}").main
  if NEEDED[name]:
    error = refused(main)
    assert re.search(
      "arguments are required: (--|WHAT)|give one of --gin_file", error
    )
    assert f"infoxlm-{name.replace('_', '-')} --help" in error or (
      "(see --help)" in error
    )
  error = refused(main, *NEEDED[name].split(), "--colour")
  assert re.search("(unrecognized|unknown) argument.* '?--colour", error)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_door_in_tools_is_the_same_command(name, tmp_path, monkeypatch):
  """`python tools/NAME.py`, from any folder."""
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  door = ROOT / "tools" / f"{name}.py"
  shown = _run(door, "--help", cwd=tmp_path).stdout
  assert shown.startswith("usage: infoxlm-")
  assert shown == _run("-m", f"infoxlm_jax.cli.{name}", "--help").stdout
  done = subprocess.run(
    [sys.executable, door, "--colour"],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2 and done.stderr.startswith("error: ")
  assert len(door.read_text().splitlines()) <= 5


@pytest.mark.parametrize(
  ("error", "code", "says"),
  [
    (None, 0, ""),
    (InputError("this is wrong"), 2, "error: this is wrong\n"),
    (StorageError("disk full"), 3, "error: disk full\n"),
    (KeyboardInterrupt(), 130, ""),
  ],
)
def test_exit_codes(capsys, error, code, says):
  def job():
    if error is not None:
      raise error

  assert command.run(job) == code
  assert capsys.readouterr().err == says


def test_errors_in_other_words(capsys):
  def job():
    raise InputError("this is wrong")

  assert command.run(job, lambda error: f"{error}, indeed") == 2
  assert capsys.readouterr().err == "error: this is wrong, indeed\n"


def test_a_bug_keeps_its_traceback():
  with pytest.raises(ZeroDivisionError):
    command.run(lambda: 1 // 0)


def test_a_reader_that_has_left_is_no_error():
  """As of `infoxlm-encode ... | head`."""
  code = """
import sys
from infoxlm_jax.cli import command
sys.exit(command.run(lambda: print("line\\n" * 100_000, flush=True)))
"""
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  assert process.stdout.readline() == b"line\n"
  process.stdout.close()
  assert process.stderr.read() == b""
  process.stderr.close()
  assert process.wait() == 0


def test_new_outputs(tmp_path):
  command.check_new(tmp_path / "new")
  command.check_new(tmp_path / "new" / "deep" / "file")
  (tmp_path / "link").symlink_to("absent")
  (tmp_path / "file").write_text("")
  for name in ("file", "link", "."):
    with pytest.raises(InputError, match="exists: move it away"):
      command.check_new(tmp_path / name)
  with pytest.raises(InputError, match="file is no folder"):
    command.check_new(tmp_path / "file" / "deep" / "new")
