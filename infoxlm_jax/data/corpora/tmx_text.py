"""The texts of a TMX file: codes that divide words, marks, white space."""

import re
from collections.abc import Iterable

_SPACE = re.compile(r"[ \t\r\n]+")
# A code that ends a line, a paragraph or a cell: HTML's, RTF's, or by its type.
_BREAK = re.compile(
  r"<(br|p|div|li|tr|td|th)\b|\\(par|line|tab|cell)\b|^lb$", re.I
)
_BETWEEN = "\0"  # stands for a code that divides words; XML has no such letter
_DIVIDED = re.compile(f"(?<=\\w){_BETWEEN}+(?=\\w)")
# Marks in place of a translation: no letter at all, or a word for it, which
# alone must stand for a longer text.
_WORD = (
  r"(n/?a|tbd|todo|untranslated|(not|no|missing) ?translat(ed|ion)|missing)"
)
_MARKED = re.compile(rf"[^\w\s]+\s*{_WORD}\s*[^\w\s]*", re.I)
_BARE = re.compile(_WORD, re.I)
_LONGER = 4  # words


def of_code(name: str, content: str) -> str:
  """What stands for a formatting code in the pieces of a text.

  <ph> divides words, and so do codes of the end of a line, paragraph or cell;
  others, such as those of bold letters, may stand within a word.

  Args:
    name: of the element.
    content: its type and what it holds.
  """
  return _BETWEEN if name == "ph" or _BREAK.search(content) else ""


def joined(pieces: Iterable[str]) -> str:
  """A text of its pieces; a run of white space becomes one blank."""
  text = "".join(pieces)
  if _BETWEEN in text:
    text = _DIVIDED.sub(" ", text).replace(_BETWEEN, "")
  return _SPACE.sub(" ", text).strip(" ")


def unless_mark(text: str, other: str) -> str:
  """The text; "" if it only marks that the other one has no translation."""
  if not any(map(str.isalpha, other)):
    return text
  mark = (
    not any(map(str.isalnum, text))
    or _MARKED.fullmatch(text)
    or (_BARE.fullmatch(text) and len(other.split()) >= _LONGER)
  )
  return "" if mark and not _MARKED.fullmatch(other) else text
