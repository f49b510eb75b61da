"""Decides which texts and pairs are left out of the records, and why."""

import dataclasses

import numpy as np

from infoxlm_jax.errors import InputError

# Reasons by number, in the order in which they are tried; 0 keeps the example.
# Duplicates, and sentences that are held out, are dropped later, when all
# examples are known.
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
HELD_OUT = "held_out"
ON_LONG = ("split", "truncate", "drop", "error")
ON_LONG_SIDE = ("truncate", "drop", "error")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cleaning:
  """The rules; each can be switched off, and every drop is counted.

  Empty texts and sides (also of only white space) cannot be records and are
  always dropped. Lengths are in tokens. A pair is dropped as a whole.

  Attributes:
    min_tokens: drop shorter texts and sides; 1 switches the rule off.
    on_long: "split" texts that do not fit into a row into pieces that do,
      "truncate" or "drop" them, or stop with an "error".
    on_long_side: the same for sides of pairs longer than max_side, without
      "split".
    max_ratio: drop pairs with one side more than this many times as long as
      the other; None switches the rule off.
    ratio_from: max_ratio holds only where the longer side has this many
      tokens: the ratio of "Hi" and a longer greeting has no meaning.
    drop_identical_sides: drop pairs of two languages with the same text on
      both sides: most are not translated.
    drop_duplicates: drop texts of a language, and pairs of two languages,
      whose tokens occurred before.
    min_script_share: drop texts and sides with a lower share of letters in the
      scripts of their language (unicode_scripts.py); None switches the rule
      off. Low by default, since technical text quotes many Latin words.
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
    """Raises InputError, which names the parameter, for a bad option."""
    for name, known in (("on_long", ON_LONG), ("on_long_side", ON_LONG_SIDE)):
      if getattr(self, name) not in known:
        raise InputError(
          f"Cleaning.{name} = {getattr(self, name)!r} is none of "
          f"{', '.join(known)}."
        )
    if self.min_tokens < 1:
      raise InputError(
        f"Cleaning.min_tokens = {self.min_tokens} must be at least 1."
      )
    if self.max_ratio is not None and self.max_ratio < 1:
      raise InputError(
        f"Cleaning.max_ratio = {self.max_ratio} must be at least 1, or None."
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
    limit: the most tokens that fit.
    shares: of letters in the language's scripts, [examples, sides]; None for
      examples without text.
    identical: bool [examples], whether the two languages' sides are the same;
      None for texts.

  Returns:
    Indices into REASONS, int8 [examples]; 0 if no rule is broken. Long ones
    are "too_long" if the policy is to drop them or to stop.
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
