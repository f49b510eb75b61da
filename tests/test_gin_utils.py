"""Errors of gin files: one line that names the place and the remedy."""

import os
import shlex
from pathlib import Path

import gin.config
import hypothesis
import pytest
from hypothesis import strategies as st

from infoxlm_jax import gin_utils, main
from infoxlm_jax.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
# A run file is one that can be given as --gin_file: it names its command.
RUN_FILES = [
  path.relative_to(ROOT).as_posix()
  for path in sorted((ROOT / "gin").rglob("*.gin"))
  if "infoxlm_jax.main" in path.read_text().partition("\n")[0]
]
HEAD = """from __gin__ import dynamic_registration
from infoxlm_jax.training import schedules
JOB = @schedules.constant
"""


@pytest.fixture(autouse=True)
def _forget():
  yield
  gin.config.clear_config()


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Makes a gin file in the current folder, and gives its name."""
  monkeypatch.chdir(tmp_path)

  def _write(text: str, name: str = "run.gin") -> str:
    (tmp_path / name).write_text(text)
    return name

  return _write


def refused(files, *overrides: str) -> str:
  """The message; it is one line and carries no Python of ours."""
  files = [files] if isinstance(files, str) else files
  with pytest.raises(InputError) as caught:
    gin_utils.load(files, overrides)
  message = str(caught.value)
  assert "\n" not in message and "Traceback" not in message
  return message


@pytest.mark.parametrize("name", RUN_FILES)
def test_the_command_of_every_run_file_parses(name):
  """Its first line: it gives all that is REQUIRED, and knows each setting."""
  first = (ROOT / name).read_text().partition("\n")[0]
  words = shlex.split(first.removeprefix("# "))
  assert words[:4] == ["python", "-m", "infoxlm_jax.main", f"--gin_file={name}"]
  # It may add a preset of a mesh.
  flag = "--gin_file="
  files = [w.removeprefix(flag) for w in words[3:] if w.startswith(flag)]
  others = [w for w in words[4:] if not w.startswith(flag)]
  config = gin_utils.load(files, others)
  assert config.macro("JOB") is not None
  assert isinstance(config.macro("MODEL_DIR"), str)


def test_there_is_a_quickstart():
  assert "gin/quickstart.gin" in RUN_FILES


def test_every_gin_file_begins_with_what_it_is():
  paths = sorted((ROOT / "gin").rglob("*.gin"))
  assert len(paths) > len(RUN_FILES) > 5
  for path in paths:
    first = path.read_text().partition("\n")[0]
    assert first.startswith(("# python -m infoxlm_jax.main", "# Part:")), path


def test_overrides_win_in_their_order():
  config = gin_utils.load(
    ["gin/quickstart.gin"],
    ["--gin.STEPS=7", "--gin.STEPS=9", "--gin.RunOptions.log_every=3"],
  )
  assert config.macro("STEPS") == 9
  assert "options.RunOptions.log_every = 3" in config.text


def test_a_later_file_wins(write):
  name = write("STEPS = 11\n")
  config = gin_utils.load(["gin/quickstart.gin", name], [])
  assert config.macro("STEPS") == 11


def test_loading_again_starts_afresh(write):
  gin_utils.load(["gin/quickstart.gin"], ["--gin.STEPS=7"])
  config = gin_utils.load([write(HEAD)], [])
  assert "STEPS" not in config.text


@pytest.mark.parametrize(
  ("value", "meaning"),
  [
    ("runs/a", "runs/a"),
    ("gs://bucket/some-run", "gs://bucket/some-run"),
    ("/data/with space/x", "/data/with space/x"),
    ("'quoted/path'", "quoted/path"),
    ('"2024"', "2024"),
    ("~/runs", "~/runs"),
    ("a=b", "a=b"),
    ("C:\\runs\\new", "C:\\runs\\new"),
    ("日本語/ラン", "日本語/ラン"),
    ("", ""),
    ("None", None),
    ("1e-3", 1e-3),
    ("['a', 'b']", ["a", "b"]),
  ],
)
def test_values_need_no_quotes(value, meaning, write):
  config = gin_utils.load([write(HEAD + "X = 0\n")], [f"--gin.X={value}"])
  assert config.macro("X") == meaning


def test_path_that_looks_like_a_number():
  message = refused("gin/quickstart.gin", "--gin.MODEL_DIR=2024")
  assert "MODEL_DIR = 2024 is a number" in message
  assert "--gin.MODEL_DIR='\"2024\"'" in message


@pytest.mark.parametrize(
  ("argument", "hint"),
  [
    ("--gin.STEPZ=4", "did you mean STEPS?"),
    ("--gin.options.RunOptions.log_evry=4", "did you mean log_every?"),
    ("--gin.pretrain.pretrian.model=4", "did you mean pretrain.pretrain?"),
    (
      "--gin.config.EncoderConfig.num_layer=1",
      "did you mean num_layers?",
    ),
    ("--gin.texts/sources.SeqioTask.modulez=[]", "did you mean modules?"),
    ("--gin.JOB=@pretrain.pretrian", "did you mean pretrain.pretrain?"),
    # It was an argument of the job itself.
    (
      "--gin.pretrain.pretrain.log_every=1",
      "did you mean options.RunOptions.log_every?",
    ),
    ("--dry_rum", "did you mean --dry_run?"),
    ("--gin_files=a.gin", "did you mean --gin_file?"),
    ("gin/quickstart.gin", "did you mean --gin_file=gin/quickstart.gin?"),
    ("--gin.STEPS", "write --gin.STEPS=VALUE"),
    ("--gin.steps=10", "did you mean --gin.STEPS=10?"),
    ("--steps=10", "did you mean --gin.STEPS=10?"),
    ("--model-dir=a", "did you mean --gin.MODEL_DIR=a?"),
    (
      "--gin.temperature=0.1",
      "did you mean --gin.contrast.Contrast.temperature=0.1?",
    ),
    (
      "--temperature=0.1",
      "did you mean --gin.contrast.Contrast.temperature=0.1?",
    ),
  ],
)
def test_did_you_mean(argument, hint):
  message = refused("gin/quickstart.gin", argument)
  assert hint in message
  assert argument.split("=")[0] in message


def test_a_misspelt_flag_is_told_before_a_missing_file():
  assert "did you mean --gin_file?" in refused([], "--gin_flie=a.gin")
  assert "--gin_file=gin/quickstart.gin" in refused([])


def test_missing_file():
  message = refused("gin/quickstrat.gin")
  assert "Did you mean gin/quickstart.gin?" in message


def test_folder_in_place_of_a_file():
  assert "is no file" in refused("gin")


def test_missing_include(write, caplog):
  message = refused(write("include 'gin/pretrian.gin'\n"))
  assert "run.gin" in message and "line 1" in message
  assert "Did you mean gin/pretrain.gin?" in message
  assert not caplog.records  # gin logs each place that it looks in


def test_all_required_are_listed_at_once(write):
  name = write(
    "include 'gin/quickstart.gin'\nfrom infoxlm_jax.training import options\n"
    "STEPS = %gin.REQUIRED\nDATA = %gin.REQUIRED\n"
    "options.EvaluationOptions.batches = %gin.REQUIRED\n"
  )
  message = refused(name)
  for flag in ("STEPS", "DATA", "options.EvaluationOptions.batches"):
    assert f"--gin.{flag}=..." in message
  message = refused(name, "--gin.STEPS=5")
  assert "STEPS" not in message and "--gin.DATA=..." in message


def test_undefined_macros(write):
  name = write(HEAD + "RATE = 1.0\nschedules.constant.value = %RATES\n")
  message = refused(name)
  assert "%RATES used but set nowhere" in message
  assert "did you mean RATE?" in message


def test_percent_in_text_is_no_macro(write):
  name = write(HEAD + "NOTE = 'a %RATES b'  # %OTHER\n")
  config = gin_utils.load([name], [])
  assert "NOTE = 'a %RATES b'" in config.text


@pytest.mark.parametrize(
  ("line", "found"),
  [
    ("X = ", "Unable to parse value"),
    ("X = 1)", "Expected newline"),
    ("X = gs://a/b", "needs quotes"),
    ("X = @nothing.here", "@nothing.here"),
    ("schedules.constant.valeu = 1", "did you mean value?"),
    ("schedules.constnat.value = 1", "did you mean schedules.constant?"),
    (
      "from infoxlm_jax.training import schedule",
      "did you mean infoxlm_jax.training.schedules?",
    ),
  ],
)
def test_broken_line_names_file_and_line(write, line, found):
  message = refused(write(f"{HEAD}{line}\n"))
  assert "run.gin" in message and "line 4" in message
  assert found in message


def test_bracket_that_is_not_closed(write):
  assert "run.gin" in refused(write(HEAD + "X = {'a': 1\n"))
  message = refused("gin/quickstart.gin", "--gin.STREAMS={'a': 1")
  assert "--gin.STREAMS" in message and "not closed" in message


@pytest.mark.parametrize("value", ["5", "pretrain.pretrain", "'text'", "None"])
def test_job_that_is_no_function(value):
  config = gin_utils.load(["gin/quickstart.gin"], [f"--gin.JOB={value}"])
  with pytest.raises(InputError, match="JOB = .* is not a reference to a"):
    config.job()


def test_no_job(write):
  config = gin_utils.load([write("X = 1\n")], [])
  with pytest.raises(InputError, match="sets no JOB"):
    config.job()


def test_argument_that_nobody_bound(write):
  config = gin_utils.load([write(HEAD)], [])
  with pytest.raises(InputError, match=r"No values .* \['value'\]"):
    config.job()
  config = gin_utils.load([write(HEAD)], ["--gin.schedules.constant.value=2"])
  assert config.job()(5) == 2


def test_an_error_inside_the_job_stays_what_it_is(write):
  """A bug must not be reported as bad input."""
  text = "from __gin__ import dynamic_registration\n"
  text += "from infoxlm_jax.runtime import resources\nJOB = @resources.find\n"
  config = gin_utils.load([write(text)], [])
  with pytest.raises(TypeError, match="PathLike"):
    config.job(name=5)


def test_write(write, tmp_path):
  config = gin_utils.load([write(HEAD)], ["--gin.schedules.constant.value=2"])
  config.job()
  config.write(tmp_path / "out")
  again = gin_utils.load([str(tmp_path / "out" / "config.gin")], [])
  assert again.text == config.text
  used = (tmp_path / "out" / "operative_config.gin").read_text()
  assert "schedules.constant.value = 2" in used


REGISTER = "from __gin__ import dynamic_registration\n"


@pytest.mark.parametrize(
  ("text", "found"),
  [
    ("import os\n", "run.gin, line 1: imports the module os,"),
    (HEAD + "import os.path as p\n", "imports the module os.path,"),
    (HEAD + "from infoxlm_jax2 import a\n", "the module infoxlm_jax2.a,"),
    (HEAD + "include 'other.gin'\n", "other.gin, line 2: imports the module"),
    (
      REGISTER
      + "from infoxlm_jax.runtime import resources\n"
      + "JOB = @resources.os.system\n",
      "name infoxlm_jax.runtime.resources.os.system, of the module posix,",
    ),
  ],
)
def test_imports_need_permission(write, text, found):
  write("\nimport unheard_of\n", "other.gin")
  message = refused(write(text))
  assert found in message and "--gin_allow_imports=" in message


def test_an_import_on_the_command_line_needs_it_too(write):
  message = refused(write(HEAD + "X = 1\n"), "--gin.X=[1]\nimport unheard_of")
  assert "--gin.X, line 2: imports the module unheard_of," in message


def test_imports_that_are_allowed(write, monkeypatch, tmp_path):
  package = tmp_path / "mine_too"
  package.mkdir()
  (package / "part.py").write_text("def job():\n  return 7\n")
  monkeypatch.syspath_prepend(tmp_path)
  name = write(REGISTER + "from mine_too import part\nJOB = @part.job\n")
  assert "--gin_allow_imports=mine_too" in refused(name)
  for other in ("mine", "mine_too2", "mine_too.parts"):
    with pytest.raises(InputError, match="--gin_allow_imports=mine_too"):
      gin_utils.load([name], [], allow_imports=[other])
  for allowed in ("mine_too", "mine_too.part"):
    config = gin_utils.load([name], [], allow_imports=["a", allowed])
    assert config.job() == 7


def test_main_passes_the_permission_on(write, monkeypatch, tmp_path, capsys):
  (tmp_path / "mine_also.py").write_text("def job():\n  pass\n")
  monkeypatch.syspath_prepend(tmp_path)
  name = write(REGISTER + "import mine_also\nJOB = @mine_also.job\n")
  assert main.main([f"--gin_file={name}", "--dry_run"]) == 2
  assert "imports the module mine_also" in capsys.readouterr().err
  allow = "--gin_allow_imports=other,mine_also"
  main.main([f"--gin_file={name}", "--dry_run", allow])
  assert "imports the module" not in capsys.readouterr().err


@pytest.mark.parametrize(
  ("text", "found"),
  [
    ("include 'run.gin'\n", "run.gin includes run.gin, which leads to it"),
    ("include './../x/run.gin'\n", "which leads to it again"),
    ("include 'other.gin'\n", "run.gin -> other.gin -> run.gin"),
    ("include 'twice0.gin'\n", "INFOXLM_MAX_GIN_FILES"),
    ("include 'chain0.gin'\n", "INFOXLM_MAX_NESTING"),
    ("A = " + "[" * 90_000 + "]" * 90_000, "nested deeper than gin's parser"),
    ("A = " + "{1:" * 50_000, "nested deeper than gin's parser"),
    ("A = '" + "a" * (1 << 20) + "'", "INFOXLM_MAX_GIN_BYTES"),
    ("A = 'na\udcefve'\n", "run.gin: byte 0xef at place 8 is not UTF-8"),
    ("include 'fifo.gin'\n", "fifo.gin"),
    ("include '/dev/zero'\n", "/dev/zero"),
    (f"include '{'x' * 5000}'\n", "Unable to open file"),
    ("-" * 50_000, "run.gin"),
  ],
)
def test_files_without_end(tmp_path, monkeypatch, text, found):
  (tmp_path / "x").mkdir()
  monkeypatch.chdir(tmp_path / "x")
  Path("run.gin").write_bytes(text.encode(errors="surrogateescape"))
  Path("other.gin").write_text("include 'run.gin'\n")
  os.mkfifo("fifo.gin")
  for number in range(70):
    # 2^70 files, were each read as often as it is included.
    other = f"include 'twice{number + 1}.gin'\n" if number < 12 else ""
    Path(f"twice{number}.gin").write_text(other * 2)
    other = f"include 'chain{number + 1}.gin'\n"
    Path(f"chain{number}.gin").write_text(other)
  message = refused("run.gin")
  assert found in message and len(message) < 12_000


GIN = st.lists(
  st.sampled_from(
    ["A", "b.c", "=", " = ", "@", "%", "(", ")", "[", "]", "{", "}", ",", ":"]
    + ["\n", "  ", "'", '"', "'''", "\\", "#", "/", "1", "-", "schedules"]
    + ["@schedules.constant", "include ", "import ", "'run.gin'", "\t", "\r"]
    + ["\0", "\x0c", "é", "\udcff", "from ", "gin.REQUIRED", "%gin.REQUIRED"]
  ),
  max_size=12,
)


@hypothesis.settings(max_examples=100)
@hypothesis.given(GIN, st.booleans())
def test_noise(tmp_path_factory, pieces, after_head):
  """Any text is a configuration, or an error in one line."""
  path = tmp_path_factory.mktemp("noise") / "run.gin"
  text = HEAD * after_head + "".join(pieces)
  path.write_bytes(text.encode(errors="surrogateescape"))
  try:
    gin_utils.load([str(path)], [])
  except InputError as error:
    assert "\n" not in str(error)


def test_settings_that_have_changed_are_told(write, tmp_path, capsys):
  name = write(HEAD + "RATE = 1.0\nOTHER = [1,\n  2]\n")
  folder = tmp_path / "run"
  gin_utils.load([name], []).write(folder)
  gin_utils.load([name], []).write(folder)
  assert capsys.readouterr().out == ""
  gin_utils.load([name], ["--gin.RATE=2.0", "--gin.OTHER=[3]"]).write(folder)
  said = capsys.readouterr().out
  assert "RATE was 1.0 and is now 2.0" in said
  assert "OTHER was [1, 2] and is now [3]" in said
  assert len((folder / "changes.txt").read_text().splitlines()) == 2
  gin_utils.load([name], []).write(folder)
  assert len((folder / "changes.txt").read_text().splitlines()) == 4
