"""Says what preparing dropped, and refuses streams that it left too small."""

from collections.abc import Mapping
from typing import Any

from infoxlm_jax.data import alternating_stream
from infoxlm_jax.data.manifest import Counts
from infoxlm_jax.data.records import Store
from infoxlm_jax.errors import InputError

# A larger share of dropped sentences is rarely meant.
MUCH = 0.2

_ADVICE = {
  "empty": "a side or line without text",
  "wrong_script": "under MIN_SCRIPT_SHARE of the letters are of the language's"
  " scripts: is the language right?",
  "too_short": "fewer tokens than MIN_TOKENS",
  "too_long": "see ON_LONG and ON_LONG_SIDE",
  "length_ratio": "one side is over MAX_RATIO times as long as the other: do"
  " the sides belong together?",
  "identical_sides": "both sides are the same text: is it translated?",
  "duplicate": "the same text came before",
  "held_out": "dev or test has the same sentence",
}


def share(counts: Counts) -> float:
  """The share of the sentences that was dropped, 0 to 1."""
  return sum(counts.dropped.values()) / max(counts.read, 1)


def in_words(counts: Counts) -> str:
  """What was dropped of a corpus in a language or pair, and why."""
  lost = sum(counts.dropped.values())
  reasons = sorted(counts.dropped.items(), key=lambda item: -item[1])
  return (
    f"{'-'.join(counts.languages)}: {lost:,} of {counts.read:,} sentences"
    f" ({100 * share(counts):.0f} %) were dropped: "
    + "; ".join(
      f"{reason} {count:,} ({_ADVICE[reason]})"
      if reason in _ADVICE
      else f"{reason} {count:,}"
      for reason, count in reasons
    )
  )


def check_enough(streams: Mapping[str, Any], store: Store) -> None:
  """Refuses streams that have less than a batch since much was dropped.

  Args:
    streams: of a run, by name.
    store: the records to train on.

  Raises:
    InputError: a stream has no records, or fewer items than a batch where
      preparing dropped more than MUCH of a corpus.
  """
  for name, stream in streams.items():
    for part, (one, _) in alternating_stream.parts(name, stream, 0).items():
      try:
        mixture = one.mixture(store, 0)
      except InputError as error:
        lost = _losses(store, {c.languages for c in store.manifest.corpora})
        if not lost:
          raise
        raise InputError(f"stream {part}: {error} {lost}") from None
      items = int(mixture.sampler.counts.sum())
      sides = len(mixture.corpora[0])
      of_kind = {
        c.languages for c in store.manifest.corpora if len(c.languages) == sides
      }
      if items < one.batch and (lost := _losses(store, of_kind)):
        raise InputError(
          f"stream {part}: {items} items are left, fewer than a batch of"
          f" {one.batch}. {lost}"
        )


def _losses(store: Store, groups: set[tuple[str, ...]]) -> str:
  """Corpora of which much was dropped, and what to do; "" if none was."""
  lost = [
    f"{counts.corpus}, {in_words(counts)}."
    for counts in store.manifest.counts
    if counts.languages in groups and share(counts) > MUCH
  ]
  if not lost:
    return ""
  return (
    f"In {store.folder.parent}: {' '.join(lost[:3])} Correct the files or the"
    " setting, and prepare again (remove the folder, or choose another); or set"
    " a smaller BATCH."
  )
