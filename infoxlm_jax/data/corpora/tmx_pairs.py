"""Pairs of languages in the units of a TMX file."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from infoxlm_jax.data.corpora import tmx_text
from infoxlm_jax.data.corpora.tmx import Unit, read_units
from infoxlm_jax.data.languages import Tag, parse
from infoxlm_jax.errors import InputError

# Tags of texts that are in no language.
_NO_LANGUAGE = frozenset(("", "x-none", "zxx"))


def read_pairs(
  path: Path, languages: Sequence[str] | None = None
) -> Iterator[tuple[tuple[str, str], str, str]]:
  """Yields (languages, text, text) of each pair of languages in each unit.

  A mark that stands for a missing translation is an empty text. One line says
  at the end how much of the file gives no pair.

  Args:
    path: the file, plain or compressed.
    languages: to read, in the order of a pair's sides. `en` reads en-US and
      en-GB as en. None reads all, by their own codes: the header's source
      language first, the others sorted.

  Raises:
    InputError: see `read_units`; or no unit has two of these languages.
  """
  seen: set[str] = set()
  units = alone = unnamed = 0
  for source, unit in read_units(path, strict=languages is None):
    named = [variant for variant in unit if variant[0] not in _NO_LANGUAGE]
    units, unnamed = units + 1, unnamed + len(unit) - len(named)
    seen |= {language for language, _ in named}
    ordered = _ordered(named, languages, source)
    pair = False
    for (a, text_a), (b, text_b) in itertools.combinations(ordered, 2):
      if a != b:
        pair = True
        yield (
          (a, b),
          tmx_text.unless_mark(text_a, text_b),
          tmx_text.unless_mark(text_b, text_a),
        )
    alone += not pair
  wanted = " and ".join(languages or ("two languages",))
  if alone == units:
    raise InputError(
      f"{path}: no unit has {wanted}; the file has"
      f" {', '.join(sorted(seen)) or 'no text'}. Set languages to what it has."
    )
  if alone or unnamed:
    print(
      f"{path}: {alone:,} of {units:,} units do not have texts in {wanted};"
      f" {unnamed:,} texts are in no language (x-none, or no language's tag)",
      flush=True,
    )


def _parsed(tag: str) -> Tag:
  parsed = parse(tag)
  assert parsed is not None, tag  # it was checked before
  return parsed


def _ordered(unit: Unit, languages: Sequence[str] | None, source: str) -> Unit:
  """The variants in these languages, in the order of a pair's sides."""
  if languages is None:
    return sorted(unit, key=lambda v: (v[0] != source, v[0]))
  chosen = []
  for language in languages:
    tag = _parsed(language)
    chosen += [
      (language, text) for other, text in unit if tag.covers(_parsed(other))
    ]
  return chosen
