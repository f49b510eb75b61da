"""How files of tools/ find each other and the package."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def _imports(path: Path) -> set[str]:
  """First names of what a file imports, inside functions too."""
  names: set[str] = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name.partition(".")[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names.add(str(node.module).partition(".")[0])
  return names


def test_nothing_puts_itself_before_other_packages():
  """An installed package is found; nothing is put first in sys.path."""
  files = [*TOOLS, *(ROOT / "infoxlm_jax").rglob("*.py")]
  assert len(files) > 100
  assert not [f for f in files if "sys.path.insert" in f.read_text()]


def test_no_tool_imports_itself_in_a_circle():
  names = {path.stem for path in TOOLS}
  uses = {path.stem: _imports(path) & names for path in TOOLS}
  assert uses["bench_step"] == {"bench_common", "bench_pairs", "bench_turns"}
  while uses:
    free = {name for name, others in uses.items() if not others & set(uses)}
    assert free, f"a circle among {sorted(uses)}"
    for name in free:
      del uses[name]
