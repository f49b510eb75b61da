"""Which texts and pairs are left out of the records, and why."""

import dataclasses

import numpy as np

from infoxlm_jax.errors import InputError

# Reasons by number, in the order in which they are looked for; 0 keeps.
# "duplicate" is found later, among all examples.
REASONS = (
  "",
  "empty",
  "wrong_script",
  "too_short",
  "too_long",
  "length_ratio",
  "identical_sides",
)
DUPLICATE = "duplicate"
ON_LONG = ("split", "truncate", "drop", "error")
ON_LONG_SIDE = ("truncate", "drop", "error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cleaning:
  """Rules; each can be switched off, and each drop is counted.

  A text or a side that is empty (or only white space) cannot be a record and
  is always left out. Lengths are in tokens. A pair goes as a whole.

  Attributes:
    min_tokens: shorter texts and sides are dropped; 1 switches it off.
    on_long: texts that do not fit into a row: "split" into pieces that do,
      "truncate", "drop", or "error", which stops.
    on_long_side: sides of pairs longer than max_side: as on_long, without
      "split".
    max_ratio: pairs with one side more than so many times as long as the
      other are dropped; None switches it off.
    ratio_from: max_ratio is not applied where the longer side has fewer
      tokens (between "Hi" and a long greeting it says nothing).
    drop_identical_sides: pairs of two languages with the same text twice:
      most are not translated.
    drop_duplicates: texts of a language, and pairs of two languages, that
      came before with the very same tokens.
    min_script_share: texts and sides with a lower share of letters in the
      scripts of their language are dropped (scripts.py); None switches it
      off. Low by default: technical text quotes many Latin words.
  """

  min_tokens: int = 1
  on_long: str = "split"
  on_long_side: str = "truncate"
  max_ratio: float | None = 9.0
  ratio_from: int = 20
  drop_identical_sides: bool = True
  drop_duplicates: bool = True
  min_script_share: float | None = 0.1

  def check(self) -> None:
    """Raises InputError, naming the parameter, where an option cannot be."""
    for name, known in (("on_long", ON_LONG), ("on_long_side", ON_LONG_SIDE)):
      if getattr(self, name) not in known:
        raise InputError(
          f"Cleaning.{name} = {getattr(self, name)!r} is none of "
          f"{', '.join(known)}."
        )
    if self.min_tokens < 1:
      raise InputError(f"Cleaning.min_tokens = {self.min_tokens}: 1 at least.")
    if self.max_ratio is not None and self.max_ratio < 1:
      raise InputError(
        f"Cleaning.max_ratio = {self.max_ratio}: 1 at least, or None."
      )
    share = self.min_script_share
    if share is not None and not 0 <= share <= 1:
      raise InputError(
        f"Cleaning.min_script_share = {share} is not between 0 and 1."
      )


def judge(
  cleaning: Cleaning,
  lengths: np.ndarray,
  limit: int,
  shares: np.ndarray | None,
  identical: np.ndarray | None,
) -> np.ndarray:
  """The first rule that each example breaks.

  Args:
    cleaning: the rules.
    lengths: tokens, int [examples, sides]; one side for texts.
    limit: tokens that fit.
    shares: of letters in the language's scripts, [examples, sides]; None
      where there is no text.
    identical: whether both sides of two languages are the same; None for
      texts.

  Returns:
    Numbers of REASONS, int8 [examples]; 0 where none is broken. Long ones are
    "too_long" where the policy is to drop them or to stop.
  """
  pairs = lengths.shape[1] == 2
  longest, shortest = lengths.max(axis=1), lengths.min(axis=1)
  policy = cleaning.on_long_side if pairs else cleaning.on_long
  broken: dict[str, np.ndarray] = {
    "empty": shortest == 0,
    "too_short": shortest < cleaning.min_tokens,
  }
  if policy in ("drop", "error"):
    broken["too_long"] = longest > limit
  if shares is not None and cleaning.min_script_share is not None:
    broken["wrong_script"] = shares.min(axis=1) < cleaning.min_script_share
  if pairs and cleaning.max_ratio is not None:
    uneven = longest > cleaning.max_ratio * shortest
    broken["length_ratio"] = uneven & (longest >= cleaning.ratio_from)
  if identical is not None and cleaning.drop_identical_sides:
    broken["identical_sides"] = identical
  verdict: np.ndarray = np.zeros(len(lengths), np.int8)
  for number, reason in reversed(list(enumerate(REASONS))):
    if reason in broken:
      verdict[broken[reason]] = number
  return verdict
