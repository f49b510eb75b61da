"""Pages of the site that stand outside docs/: README.md and its neighbours.

On GitHub a page links to files by their places in the repository; here these
places become those of the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).resolve().parent.parent
# Files outside docs/ that pages link to, and their names in the site.
_OUTSIDE = {
  "README.md": "index.md",
  "CONTRIBUTING.md": "CONTRIBUTING.md",
  "SECURITY.md": "SECURITY.md",
  "NOTICE": "NOTICE.txt",
  "CITATION.cff": "CITATION.cff",
  "tasks/paper.py": "tasks/paper.py",
}
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
  """Adds the files outside docs/."""
  for name, target in _OUTSIDE.items():
    text = (_ROOT / name).read_text(encoding="utf-8")
    if target.endswith(".md"):
      text = _rewritten(text, _ROOT)
    files.append(File.generated(config, target, content=text))
  return files


def on_page_markdown(markdown: str, page: Any, **other: Any) -> str:
  """Rewrites the links of a page of docs/."""
  if page.file.generated_by:
    return markdown
  return _rewritten(markdown, Path(page.file.abs_src_path).parent)


def _rewritten(markdown: str, folder: Path) -> str:
  """The page with links as the site has them.

  Args:
    markdown: of the page.
    folder: that the page's links start from.
  """
  docs = _ROOT / "docs"

  def rewrite(match: re.Match[str]) -> str:
    target, anchor = match[1], match[2] or ""
    path = (folder / target).resolve()
    up = "../" * len(folder.relative_to(docs).parts) if folder != _ROOT else ""
    if path.is_relative_to(docs):
      if folder != _ROOT:
        return match[0]
      return f"]({path.relative_to(docs).as_posix()}{anchor})"
    name = path.relative_to(_ROOT).as_posix()
    # Where the name is missing, mkdocs says that the link leads nowhere.
    return f"]({up}{_OUTSIDE[name]}{anchor})" if name in _OUTSIDE else match[0]

  return _LINK.sub(rewrite, markdown)
