"""Pairs whose two texts are of two languages, from a translated test set."""

from collections.abc import Mapping

from infoxlm_jax.data.labelled.tsv import Texts
from infoxlm_jax.errors import InputError


def crossed(test: Mapping[str, Texts], rows: int) -> dict[str, Texts]:
  """Pairs whose first text is of one language and the second of another.

  The test sets must be translations of each other, row for row.

  Args:
    test: by language.
    rows: the first so many of each; 0: none at all.

  Returns:
    By "en-fr": the first text in en, the second in fr; "en-en" too.

  Raises:
    InputError: two languages' labels differ.
  """
  if not rows or len(test) < 2:
    return {}
  first = next(iter(test.values()))
  for own in test.values():
    if own.labels != first.labels:
      raise InputError(
        f"{own.where}: its labels are not those of {first.where}, row for row,"
        " so the two cannot be mixed; set CROSSED=0"
      )
  out = {}
  for a, one in test.items():
    for b, other in test.items():
      assert other.second is not None  # both are sets of pairs
      out[f"{a}-{b}"] = Texts(
        f"{one.where} and {other.where}",
        one.labels[:rows],
        one.first[:rows],
        other.second[:rows],
      )
  return out
