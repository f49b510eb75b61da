"""Held-out losses, and perplexity by language, while a run trains."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from infoxlm_jax.data import alternating_stream, loader
from infoxlm_jax.data.by_language import (
  ByLanguage,
  languages_of,
  with_languages,
)
from infoxlm_jax.data.records import Store
from infoxlm_jax.training.input_pipeline import Feed
from infoxlm_jax.training.options import EvaluationOptions
from infoxlm_jax.training.program import Program

Measure = Callable[[Any], dict[str, float]]
_BY_LANGUAGE = "nll_by_language"


class _Pass(NamedTuple):
  """Held-out items, the same number of each language.

  Attributes:
    step: the program that measures their batches.
    feed: draws them.
    batches: so many.
    names: what is measured in them: {objective: its name among the metrics}.
  """

  step: Callable[..., Any]
  feed: Feed
  batches: int
  names: Mapping[str, str]


def make_measure(
  program: Program, feed: Feed, folder: Path, options: EvaluationOptions
) -> Measure:
  """Builds measure(state) -> numbers by name; {} without held-out records.

  dev/NAME/loss and other means of an objective are over `options.batches`
  batches, drawn as in training. dev/NAME/perplexity/LANGUAGE is exp of the mean
  of -log p over the masked tokens of a language in `options.examples` items of
  every language, or pair of languages, and dev/NAME/perplexity/mean the
  geometric mean over languages. NAME has the part, too, of a stream whose parts
  take turns: "xlm/tlm". All without dropout, and with the same items and masks
  at every call.

  There are two jitted programs, since perplexity needs only the first: one of
  the objectives that predict masked words, and one of the others.

  Args:
    program: of the run.
    feed: for evaluation; its seed is not training's.
    folder: of held-out records.
    options: see EvaluationOptions.
  """
  if not folder.is_dir():
    return lambda state: {}
  store = Store(folder)
  objectives = program.objectives
  words = [name for name, o in objectives.items() if o.predicts_words]
  others = [name for name in objectives if name not in words]
  languages = languages_of(store)
  losses, passes = [], []
  if words:
    streams = _streams_of(program, words)
    step = program.eval_step(words, len(languages))
    plain = {name: with_languages(s, languages) for name, s in streams.items()}
    losses.append((step, dataclasses.replace(feed, streams=plain)))
    if options.examples:
      even = {
        name: {
          part: ByLanguage(one, languages, options.examples)
          for part, (one, _) in alternating_stream.parts("", s, 0).items()
        }
        for name, s in streams.items()
      }
      reads = {name: objectives[name].stream for name in words}
      passes = _passes(step, feed, store, even, reads)
  if others:
    streams = _streams_of(program, others)
    step = program.eval_step(others, 0)
    losses.append((step, dataclasses.replace(feed, streams=streams)))

  def measure(state: Any) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for step, own in losses:
      sums = _sums(step, state, own, store, options.batches)
      metrics |= {
        f"dev/{name}": float(value / max(weight, 1e-9))
        for name, (value, weight) in sums.items()
        if not name.endswith(_BY_LANGUAGE)
      }
    for one in passes:
      sums = _sums(one.step, state, one.feed, store, one.batches)
      for objective, name in one.names.items():
        nll, targets = sums[f"{objective}/{_BY_LANGUAGE}"]
        by_language = perplexities(nll, targets, languages)
        for language, value in by_language.items():
          metrics[f"dev/{name}/perplexity/{language}"] = value
    return metrics

  return measure


def perplexities(
  nll: np.ndarray, targets: np.ndarray, languages: Sequence[str]
) -> dict[str, float]:
  """exp of the mean -log p of each language, and "mean" of them all.

  Args:
    nll: sums [languages + 1], in nats; the first is of what is not counted.
    targets: numbers of masked tokens, likewise.
    languages: of the sums after the first. Those without targets are left out.
  """
  means = {
    language: float(value / count)
    for language, value, count in zip(
      languages, nll[1:], targets[1:], strict=True
    )
    if count
  }
  # Of perplexities an arithmetic mean would be that of the worst languages.
  means["mean"] = float(np.mean(list(means.values())))
  return {language: float(np.exp(value)) for language, value in means.items()}


def _streams_of(program: Program, names: Sequence[str]) -> dict[str, Any]:
  read = {program.objectives[name].stream for name in names}
  return {name: s for name, s in program.streams.items() if name in read}


def _sums(
  step: Callable[..., Any], state: Any, feed: Feed, store: Store, batches: int
) -> dict[str, Any]:
  """The sums of all batches; the number of a batch decides its masks."""
  total: dict[str, Any] = {}
  drawn = feed.draw(store, feed.start(), batches)
  for number, (batch, _) in enumerate(drawn):
    sums = jax.device_get(step(state, batch, number))
    total = jax.tree.map(np.add, total, sums) if total else sums
  return total


def _passes(
  step: Callable[..., Any],
  feed: Feed,
  store: Store,
  streams: Mapping[str, Mapping[str, ByLanguage]],
  reads: Mapping[str, str],
) -> list[_Pass]:
  """One pass; of streams whose parts take turns, one for each turn.

  Args:
    step: the program that reads all the streams.
    feed, store: see make_measure.
    streams: {name of a stream: {name of a part: the part}}.
    reads: {objective: name of its stream}.
  """
  passes = []
  for turn in range(max(map(len, streams.values()))):
    # A stream without this turn is there again, for the program reads it.
    drawn = {
      name: list(own.values())[min(turn, len(own) - 1)]
      for name, own in streams.items()
    }
    here = {
      name: list(own)[turn] for name, own in streams.items() if turn < len(own)
    }
    batches = 0
    for name, part in here.items():
      seed = loader.stream_seed(feed.seed, name)
      counts = drawn[name].counts(store, seed)
      needed = math.ceil(sum(counts.values()) / drawn[name].batch)
      batches = max(batches, needed)
      if jax.process_index() == 0:
        print(_in_words(name + part, drawn[name].examples or 0, counts, needed))
    names = {
      objective: objective + here[stream]
      for objective, stream in reads.items()
      if stream in here
    }
    own_feed = dataclasses.replace(feed, streams=drawn)
    passes.append(_Pass(step, own_feed, batches, names))
  return passes


def _in_words(
  name: str, examples: int, counts: Mapping[str, int], batches: int
) -> str:
  fewer = [f"{k} {n}" for k, n in counts.items() if n < examples]
  text = (
    f"stream {name}: perplexity of {examples} held-out items of each of"
    f" {', '.join(counts)}: {batches} batches"
  )
  return f"{text} (fewer held out: {', '.join(fewer)})" if fewer else text
