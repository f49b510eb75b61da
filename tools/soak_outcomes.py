"""Outcomes of soak.py's injections, counted and shown as a table."""

import dataclasses
from collections.abc import Iterable, Sequence

DETECTED = "detected"  # refused with one of our errors and its exit code
HARMLESS = "harmless"  # the file is not read, and is in the list of those
RECOVERED = "recovered"  # ends as the reference, bit for bit
SILENT = "silent"  # ends with other numbers, or unfinished, with exit code 0
TRACEBACK = "tracebacks"  # an exception that is none of ours
LOST = "lost"  # no good checkpoint remains
WRONG_CODE = "wrong_codes"  # an exit code that no document has
HUNG = "hung"
FAILURES = (SILENT, TRACEBACK, LOST, WRONG_CODE, HUNG)
OUTCOMES = (DETECTED, HARMLESS, RECOVERED, *FAILURES)


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Of one injection.

  Attributes:
    kind: of the injection, a row of the table: "kill: save".
    outcome: one of OUTCOMES.
    where: the file or the moment.
    detail: in words, for outcomes that are failures.
    seconds: to recover: from the next start to the update that the run had
      reached before. 0: there was nothing to recover.
  """

  kind: str
  outcome: str
  where: str = ""
  detail: str = ""
  seconds: float = 0.0


def counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
  """{"injected": number of outcomes, each of OUTCOMES: number of those}."""
  sums = dict.fromkeys(("injected", *OUTCOMES), 0)
  for outcome in outcomes:
    sums["injected"] += 1
    sums[outcome.outcome] += 1
  return sums


def table(outcomes: Sequence[Outcome]) -> str:
  """A line for each kind, and one for all."""
  names = ("injected", *OUTCOMES)
  kinds = dict.fromkeys(outcome.kind for outcome in outcomes)
  width = max(len("all"), *map(len, kinds))
  lines = [" ".join([f"{'':{width}}", *names, "worst_s"])]
  for kind in [*sorted(kinds), "all"]:
    own = [o for o in outcomes if kind in (o.kind, "all")]
    cells = [f"{counts(own)[name]:{len(name)}}" for name in names]
    worst = max((outcome.seconds for outcome in own), default=0.0)
    lines.append(" ".join([f"{kind:{width}}", *cells, f"{worst:7.1f}"]))
  return "\n".join(lines)


def failures(outcomes: Iterable[Outcome]) -> list[str]:
  """A line for each outcome that must not be."""
  return [
    f"{o.outcome}: {o.kind}, {o.where}: {' '.join(o.detail.split())[-400:]}"
    for o in outcomes
    if o.outcome in FAILURES
  ]


def harmless(outcomes: Iterable[Outcome]) -> list[str]:
  """The files that were damaged and are not read, each once."""
  return sorted({o.where for o in outcomes if o.outcome == HARMLESS})
