"""Writes a report as report.md and, from the same text, as report.html."""

import base64
import html
from pathlib import Path

from markdown_it import MarkdownIt

from infoxlm_jax.runtime.files import write_atomically

REPORT_FILE = "report.md"
HTML_FILE = "report.html"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }}
h1, h2 {{ line-height: 1.2; }}
h2 {{ margin-top: 2.5rem; border-bottom: 1px solid #ddd; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ padding: .2rem .7rem; border-bottom: 1px solid #e3e3e3; }}
th {{ text-align: left; }}
td {{ font-variant-numeric: tabular-nums; }}
img {{ max-width: 100%; }}
</style>
</head>
<body>
{body}</body>
</html>
"""


def write(folder: Path, text: str) -> Path:
  """Writes report.md and report.html, a page without other files.

  The page holds the pictures and no script, and asks no server, so it opens by
  a double click and can be sent as one file.

  Args:
    folder: of the report; links in the text are relative to it.
    text: in Markdown, with tables. HTML in it is shown as text.

  Returns:
    The path of report.md.

  Raises:
    StorageError: a file could not be written.
  """
  write_atomically(folder / REPORT_FILE, text)
  write_atomically(folder / HTML_FILE, in_html(folder, text))
  return folder / REPORT_FILE


def in_html(folder: Path, text: str) -> str:
  """The page of a report; see `write`."""
  parser = MarkdownIt("commonmark", {"html": False}).enable("table")
  tokens = parser.parse(text)
  for token in tokens:
    for part in token.children or ():
      picture = folder / str(part.attrGet("src"))
      if part.type == "image" and picture.is_file():
        content = base64.b64encode(picture.read_bytes()).decode("ascii")
        part.attrSet("src", f"data:image/png;base64,{content}")
  heading = text.lstrip().partition("\n")[0].lstrip("# ")
  body = parser.renderer.render(tokens, parser.options, {})
  return _PAGE.format(title=html.escape(heading), body=body)
