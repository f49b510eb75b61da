"""Imports go one way: a module uses only what stands below or beside it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "infoxlm_jax"
TASKS = PACKAGE.parent / "tasks"

# Layer of each module or folder of modules (the design, part 1). A folder's
# modules may have a line of their own.
LAYERS = {
  "__init__": -1,
  "chips": -1,
  "errors": -1,
  "host_memory": -1,
  "resources": -1,
  "vocabulary": -1,
  # arrays only
  "attention": 0,
  "encoder": 0,
  "encoder_config": 0,
  "heads": 0,
  "hlo": 0,
  "hlo_groups": 0,
  "layers": 0,
  "objectives": 0,
  "negatives": 0,
  "optimizer": 0,
  "partitioning": 0,
  "rowwise": 0,
  "schedules": 0,
  "token_table": 0,
  # the state and what maps states to states
  "collectives": 1,
  "local": 1,
  "side_steps": 1,
  "state": 1,
  "step": 1,
  # the outside world
  "bounds": 2,
  "checkpoint": 2,
  "checkpoint_files": 2,
  "clusters": 2,
  "costs": 2,
  "data": 2,
  "feed": 2,
  "fingerprints": 2,
  "metrics": 2,
  "processes": 2,
  "progress": 2,
  "roll_call": 2,
  "run_folder": 2,
  "signals": 2,
  "targets": 2,
  "vector_files": 2,
  "weights": 2,
  # jobs
  "ahead": 3,
  "ahead_text": 3,
  "checks": 3,
  "evaluation": 3,
  "export": 3,
  "inference": 3,
  "initial": 3,
  "inspection": 3,
  "prepare_job": 3,
  "reading": 3,
  "train": 3,
  "training_log": 3,
  # entry
  "configuration": 4,
  "main": 4,
}
# Packages that only some modules may know.
ONLY = {
  "flax.linen": {"layers"},
  "orbax": {"checkpoint"},
  "gin": {"configuration"},
  # fairseq keeps its options in an argparse.Namespace.
  "argparse": {"main", "weights.torch_files"},
  "grain": {"data.loader"},
  "defusedxml": {"data.tmx"},
  "zstandard": {"data.files"},
  "tensorflow": {"data.tasks"},
  "tensorflow_datasets": {"data.tasks"},
  "seqio": {"data.tasks"},
  "torch": {"export.compare", "weights.torch_files"},
  "sacremoses": {"data.xlm_tokenizer"},
}
MODULES = sorted(
  ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
  for path in PACKAGE.rglob("*.py")
)


def layer_of(module: str) -> int:
  place = module if module in LAYERS else module.partition(".")[0]
  assert place in LAYERS, f"{place} has no layer yet: give it one in LAYERS"
  return LAYERS[place]


def imports(path: Path, top_level: bool = False) -> set[str]:
  """Full names of what a file imports; without functions if `top_level`."""
  found: set[str] = set()
  pending: list[ast.AST] = [ast.parse(path.read_text())]
  while pending:
    node = pending.pop()
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      found |= {f"{node.module}.{alias.name}" for alias in node.names}
    in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if not (top_level and in_function):
      pending += ast.iter_child_nodes(node)
  return found


def own(name: str) -> str | None:
  """Which module of ours a full name is, or is in."""
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
def test_imports_only_its_own_layer_or_below(module):
  mine = layer_of(module)
  above = {
    other: layer_of(other)
    for name in imports(file_of(module))
    if (other := own(name)) is not None and layer_of(other) > mine
  }
  assert not above, f"{module} (layer {mine}) imports {above}"


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
  for path in TASKS.rglob("*.py"):
    for name in imports(path):
      module = own(name)
      assert module is None or module.startswith("data."), (path, name)


def test_the_table_names_modules_that_exist():
  known = {module.partition(".")[0] for module in MODULES} | set(MODULES)
  assert set(LAYERS) <= known
  assert set().union(*ONLY.values()) <= known


def test_no_module_imports_itself_in_a_circle():
  """Layers leave room for circles among neighbours; there are none."""
  uses = {
    module: {own(n) for n in imports(file_of(module), True)} - {None, module}
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
  assert own("infoxlm_jax.training.pretrain") == "train"
  assert own("jax.numpy") is None
