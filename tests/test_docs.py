"""README and docs name only files, modules and settings that exist."""

import argparse
import ast
import importlib
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gin.config
import pytest

import infoxlm_jax
from infoxlm_jax import gin_utils, main
from infoxlm_jax.evaluation.text_encoder import Encoder

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
  path.relative_to(ROOT).as_posix()
  for path in (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").rglob("*.md")),
  )
]
NOTEBOOKS = [
  path.relative_to(ROOT).as_posix()
  for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
]
# Code: between backticks, in an indented line, or between fences.
_CODE = re.compile(r"```[^`]*```|`[^`\n]+`|^    .*$", re.MULTILINE)
# A path from the repository's root, and not the end of another path.
_PATH = re.compile(
  r"(?<![\w./-])(?:infoxlm_jax|gin|tasks|tests|tools|docs)/[\w./-]*\w"
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MODULE = re.compile(r"\binfoxlm_jax(?:\.\w+)+")
_PARAMETER = re.compile(r"(?<![\w.])([a-z_]+)\.([A-Za-z_]+)\.([a-z_0-9]+)\b")
_COMMAND = re.compile(r"^ +python -m infoxlm_jax\.main .*$", re.MULTILINE)
_TOOL = re.compile(
  r"^ +(?:python tools/(\w+)\.py|infoxlm-([\w-]+))(?= |$)(.*)$", re.MULTILINE
)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def _forget_bindings():
  yield
  gin.config.clear_config()


def text(page: str) -> str:
  return (ROOT / page).read_text(encoding="utf-8")


def code(markdown: str) -> str:
  return "\n".join(part.strip("`") for part in _CODE.findall(markdown))


def paths_in(markdown: str) -> set[str]:
  return set(_PATH.findall(code(markdown)))


def anchors(page: Path) -> set[str]:
  """Anchors of a page's headings, as GitHub forms them."""
  headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
  return {
    re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    for heading in headings
  }


def commands(markdown: str) -> list[list[str]]:
  """Arguments of each command that runs a job."""
  lines = _COMMAND.findall(markdown)
  words = [shlex.split(line, comments=True)[3:] for line in lines]
  return [[word for word in line if word != "&"] for line in words]


def tool_commands(markdown: str) -> list[tuple[str, list[str]]]:
  """(module, arguments) of each command of tools/ or of the installed ones."""
  return [
    ((tool or script).replace("-", "_"), shlex.split(rest, comments=True))
    for tool, script, rest in _TOOL.findall(markdown)
  ]


def calls(code: str) -> Iterator[tuple[str, str, list[str]]]:
  """(object, method, keywords) of each call of a method in Python code."""
  for node in ast.walk(ast.parse(code)):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      value = node.func.value
      if isinstance(value, ast.Name):
        keywords = [word.arg for word in node.keywords if word.arg]
        yield value.id, node.func.attr, keywords


def unknown_keywords(code: str) -> list[tuple[str, str]]:
  """(method, keyword) of calls of ours whose method has no such keyword."""
  ours = {"infoxlm_jax": infoxlm_jax, "encoder": Encoder}
  return [
    (method, keyword)
    for thing, method, keywords in calls(code)
    if thing in ours
    for keyword in keywords
    if keyword not in inspect.signature(getattr(ours[thing], method)).parameters
  ]


class Parsed(Exception):
  """The arguments could be parsed; `args` holds those that nobody knows."""


@pytest.fixture
def parse_only(monkeypatch):
  """Every parser of arguments ends its program with Parsed."""
  original = argparse.ArgumentParser.parse_known_args

  def parse(self, *given, **options):
    raise Parsed(*original(self, *given, **options)[1])

  monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)


def resolve(name: str) -> Any:
  """What a dotted name of the package stands for."""
  parts = name.split(".")
  for end in range(len(parts), 0, -1):
    path = ROOT.joinpath(*parts[:end])
    if path.is_dir() or path.with_suffix(".py").is_file():
      break
  thing: Any = importlib.import_module(".".join(parts[:end]))
  for part in parts[end:]:
    thing = getattr(thing, part)
  return thing


def modules_called(stem: str) -> list[str]:
  files = (ROOT / "infoxlm_jax").rglob(f"{stem}.py")
  return [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]


def parameters_in(markdown: str) -> set[tuple[str, str, str]]:
  """(module, function or class, parameter) of settings with all three."""
  return {
    (stem, name, parameter)
    for stem, name, parameter in _PARAMETER.findall(
      code(markdown).replace("--gin.", " ")
    )
    if name[0].isupper() or modules_called(stem)
  }


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page):
  paths = paths_in(text(page))
  assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
  for target in _LINK.findall(text(page)):
    if target.startswith("https://"):
      continue
    name, _, anchor = target.partition("#")
    file = (ROOT / page).parent / name if name else ROOT / page
    assert file.exists(), target
    assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES)
def test_every_module_and_function_exists(page):
  for name in set(_MODULE.findall(text(page))):
    resolve(name)


@pytest.mark.parametrize("page", PAGES)
def test_every_parameter_exists(page):
  for stem, name, parameter in parameters_in(text(page)):
    where = f"{stem}.{name}.{parameter}"
    (module,) = modules_called(stem) or pytest.fail(where)
    signature = inspect.signature(resolve(f"{module}.{name}"))
    assert parameter in signature.parameters, where


@pytest.mark.parametrize("page", PAGES)
def test_every_command_parses(page):
  """Its gin files exist and its settings are known; costs need not all."""
  for words in commands(text(page)):
    files = [
      word.removeprefix("--gin_file=")
      for word in words
      if word.startswith("--gin_file=")
    ]
    settings = [word for word in words if word.startswith("--gin.")]
    costs = any(w.startswith(("--dry_run", "--compile_for")) for w in words)
    optional = ("DATA", "INIT_FROM", "MODEL_DIR") if costs else ()
    if files:
      config = gin_utils.load(files, settings, optional=optional)
      assert config.macro("JOB") is not None, words


@pytest.mark.parametrize("page", PAGES)
def test_every_command_has_flags_that_exist(page, parse_only):
  for words in commands(text(page)):
    if words == ["--help"]:
      continue
    with pytest.raises(Parsed) as parsed:
      main.main(words)
    unknown = [w for w in parsed.value.args if not w.startswith("--gin.")]
    assert not unknown, words


@pytest.mark.parametrize("page", PAGES)
def test_every_tool_has_arguments_that_exist(page, parse_only, monkeypatch):
  for name, words in tool_commands(text(page)):
    own = ROOT / "infoxlm_jax" / "cli" / f"{name}.py"
    module = f"infoxlm_jax.cli.{name}" if own.exists() else name
    monkeypatch.setattr("sys.argv", [name, *words])
    with pytest.raises(Parsed) as parsed:
      importlib.import_module(module).main()
    unknown = [w for w in parsed.value.args if not w.startswith("--gin.")]
    assert not unknown, (name, words)


@pytest.mark.parametrize("page", PAGES)
def test_python_code_calls_what_exists(page):
  for block in _PYTHON.findall(text(page)):
    assert not unknown_keywords(block)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_have_no_outputs_and_call_what_exists(name):
  cells = json.loads(text(name))["cells"]
  sources = {"code": "", "markdown": ""}
  for cell in cells:
    sources[cell["cell_type"]] += "".join(cell["source"]) + "\n"
    assert not cell.get("outputs") and not cell.get("execution_count")
  assert not unknown_keywords(sources["code"])
  for target in _LINK.findall(sources["markdown"]):
    assert ((ROOT / name).parent / target).exists(), target
  paths = _PATH.findall(sources["code"]) + list(paths_in(sources["markdown"]))
  assert paths and not [path for path in paths if not (ROOT / path).exists()]


def test_the_gin_file_that_lists_several_corpora_parses(tmp_path):
  after = text("docs/continue.md").partition("    # mine.gin\n")[2]
  lines = re.match(r"(?:    .*\n|\n)+", after)
  assert lines is not None
  file = tmp_path / "mine.gin"
  file.write_text(re.sub(r"(?m)^    ", "", lines.group()))
  config = gin_utils.load(
    [str(file)], ["--gin.TOKENIZER=t", "--gin.MODEL_DIR=m"]
  )
  assert "Moses.input = 'opus/*-*'" in config.text


def test_the_checks_see_what_they_should():
  assert len(PAGES) > 10 and len(NOTEBOOKS) == 2
  page = """Prose gin/not.gin, `gin/no.gin` and `data/tests/x.py`:

    python tools/no.py --gin.contrast.Contrast.no=1
    python -m infoxlm_jax.main --gin_file=gin/quickstart.gin --gin.SEED=1  # x

`tlm/streams.PairStream.batch`, `numpy.linalg.norm`, `--gin.Run.x=1`,
`optimizer.adamw.beta2`
"""
  assert paths_in(page) == {"gin/no.gin", "tools/no.py", "gin/quickstart.gin"}
  assert commands(page) == [["--gin_file=gin/quickstart.gin", "--gin.SEED=1"]]
  assert parameters_in(page) == {
    ("contrast", "Contrast", "no"),
    ("streams", "PairStream", "batch"),
    ("optimizer", "adamw", "beta2"),
  }
  assert _MODULE.findall("`infoxlm_jax.data.records.Store`, infoxlm_jax/x") == [
    "infoxlm_jax.data.records.Store"
  ]
  assert commands(text("README.md")) and commands(text("docs/data.md"))
  page = """
    python tools/encode.py --model a  # why
    infoxlm-import-checkpoint --input 'b c'
    infoxlm-doctor
"""
  assert tool_commands(page) == [
    ("encode", ["--model", "a"]),
    ("import_checkpoint", ["--input", "b c"]),
    ("doctor", []),
  ]
  assert list(calls("encoder.encode(x, layer=f(1))")) == [
    ("encoder", "encode", ["layer"])
  ]
  assert unknown_keywords("encoder.encode(x, layers=1)") == [
    ("encode", "layers")
  ]
  assert _PYTHON.findall("```python\na\n```\n```\nb\n```\n") == ["a\n"]


def test_parsers_that_refuse_are_seen(parse_only):
  with pytest.raises(Parsed, match="--dryrun"):
    main.main(["--gin_file=a.gin", "--dryrun"])
