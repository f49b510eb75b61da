"""Imports go one way: a module uses only what stands below or beside it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "infoxlm_jax"
TASKS = PACKAGE.parent / "tasks"

# A room may import those above it in this table, and files of its own.
ROOMS = (
  {"errors", "version", "special_ids"},
  {"runtime", "model"},
  {"objectives", "data"},
  {"checkpoint"},
  {"evaluation"},
  {"training"},
  {"finetuning"},
  {"analysis"},
  {"gin_errors", "gin_files", "gin_types"},
  {"gin_utils"},
  {"main", "cli", "__init__"},
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
# Packages that only some modules may know.
ONLY = {
  "flax.linen": {"model.layers"},
  "orbax": {"checkpoint.manager", "checkpoint.params"}
  | {"checkpoint.examine", "checkpoint.retention", "checkpoint.small_files"}
  | {"checkpoint.orbax_manager"},
  "gin": {"gin_errors", "gin_files", "gin_types", "gin_utils"},
  # fairseq keeps its options in an argparse.Namespace.
  "argparse": {"main", "checkpoint.importers.torch_pickle"}
  | {
    "cli.checkpoint",
    "cli.command",
    "cli.doctor",
    "cli.encode",
    "cli.export",
    "cli.import_checkpoint",
  }
  | {"cli.inspect_data", "cli.train_tokenizer"},
  "grain": {"data.loader"},
  "defusedxml": {"data.corpora.tmx"},
  "zstandard": {"data.corpora.unpacking"},
  "tensorflow": {"data.corpora.seqio_reader", "data.corpora.seqio_tasks"}
  | {"data.corpora.tfds_folder"},
  "tensorflow_datasets": {"data.corpora.seqio_reader"}
  | {"data.corpora.tfds_folder"},
  "seqio": {"data.corpora.seqio_tasks"},
  "torch": {
    "checkpoint.exporters.compare_torch",
    "checkpoint.importers.torch_pickle",
  },
  "sacremoses": {"data.tokenizers.xlm"},
}
MODULES = sorted(
  ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
  for path in PACKAGE.rglob("*.py")
)


def room_of(module: str) -> str:
  room = module.partition(".")[0]
  assert room in FLOOR, f"{room} is no room yet: give it a line in ROOMS"
  return room


def imports(path: Path, top_level: bool = False) -> set[str]:
  """Full names of what a file imports; without functions if `top_level`."""
  names: set[str] = set()
  pending: list[ast.AST] = [ast.parse(path.read_text())]
  while pending:
    node = pending.pop()
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
    in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if not (top_level and in_function):
      pending += ast.iter_child_nodes(node)
  return names


def own(name: str) -> str | None:
  """The module of this package that a full name is, or is in."""
  parts = name.split(".")
  if parts[0] != PACKAGE.name:
    return None
  for end in range(len(parts), 0, -1):
    module = ".".join(parts[1:end])
    if module in MODULES:
      return module
  return "__init__"


def file_of(module: str) -> Path:
  return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_its_own_room_and_those_above(module):
  mine = room_of(module)
  wrong = {
    other
    for name in imports(file_of(module))
    if (other := own(name)) is not None
    and (room := room_of(other)) != mine
    and FLOOR[room] >= FLOOR[mine]
  }
  assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize("module", MODULES)
def test_packages_that_only_some_may_know(module):
  for name in imports(file_of(module)):
    for package, allowed in ONLY.items():
      if name == package or name.startswith(package + "."):
        assert module in allowed, f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_tensorflow_is_imported_inside_functions_only(module):
  slow = {"tensorflow", "tensorflow_datasets", "seqio"}
  roots = {n.partition(".")[0] for n in imports(file_of(module), True)}
  assert not roots & slow


def test_tasks_use_only_data():
  paths = sorted(TASKS.rglob("*.py"))
  assert paths
  for path in paths:
    for name in imports(path):
      module = own(name)
      assert module is None or module.startswith("data."), (path, name)


def test_the_table_names_modules_that_exist():
  assert set(FLOOR) == {module.partition(".")[0] for module in MODULES}
  assert set().union(*ONLY.values()) <= set(MODULES)


def test_no_module_imports_itself_in_a_circle():
  """Not even by an import inside a function."""
  uses = {
    module: {own(n) for n in imports(file_of(module))} - {None, module}
    for module in MODULES
  }
  while uses:
    free = {m for m, others in uses.items() if not others & set(uses)}
    assert free, f"a circle among {sorted(uses)}"
    for module in free:
      del uses[module]


def test_the_checks_see_what_they_should(tmp_path):
  file = tmp_path / "a.py"
  file.write_text(
    "import flax.linen as nn\ndef f():\n  from seqio import Task\n"
  )
  assert imports(file) == {"flax.linen", "seqio.Task"}
  assert imports(file, True) == {"flax.linen"}
  assert own("infoxlm_jax.data.loader.batches") == "data.loader"
  assert own("infoxlm_jax.training.step") == "training.step"
  assert own("jax.numpy") is None
