"""Perplexity by language against plain numpy, on real held-out verses."""

import dataclasses
from collections import Counter, defaultdict
from pathlib import Path

import jax
import numpy as np
import pytest
import small_corpus
import small_run

from infoxlm_jax.data.records import Store
from infoxlm_jax.model import encoder
from infoxlm_jax.model.config import EncoderConfig
from infoxlm_jax.objectives.masked_lm import MaskedLM
from infoxlm_jax.training import device_step, held_out
from infoxlm_jax.training.input_pipeline import Feed
from infoxlm_jax.training.options import EvaluationOptions
from infoxlm_jax.training.program import Program, make_program

EXAMPLES = 5  # of 20; French has 17


@pytest.fixture(scope="module", autouse=True)
def _compile_once(tmp_path_factory):
  with small_run.compiled_once(tmp_path_factory.mktemp("compiled")):
    yield


@pytest.fixture(scope="module")
def program() -> Program:
  options = small_run.options(Path("unused"))
  length = 2 * small_corpus.MAX_SIDE + 4  # so that no pair is cut
  return make_program(
    dataclasses.replace(options["model"], dropout=0.5, max_positions=length),
    {"mlm": MaskedLM("mlm"), "tlm": MaskedLM("tlm")},
    {
      name: dataclasses.replace(options["streams"][name], row_length=length)
      for name in ("mlm", "tlm")
    },
    options["update"],
    options["parallelism"],
    small_run.one_device(),
  )


def random_state(program: Program):
  """Weights far from zero, so that languages differ."""
  state = program.random_state(0)
  params = jax.tree.map(lambda x: 8 * x if x.ndim > 1 else x, state.params)
  return dataclasses.replace(state, params=params)


def test_perplexity_by_language_is_that_of_numpy(program, monkeypatch):
  seen = []  # batches, and the numbers that decide their masks

  def recorded(own: Program, names, languages):
    step = eval_step(own, names, languages)

    def recorder(state, batch, number):
      seen.append((jax.device_get(batch), number))
      return step(state, batch, number)

    return recorder

  eval_step = Program.eval_step
  monkeypatch.setattr(Program, "eval_step", recorded)
  feed = Feed(program.streams, program.mesh, 4, seed=3)
  folder = small_corpus.prepared() / "dev"
  state = random_state(program)
  measure = held_out.make_measure(
    program, feed, folder, EvaluationOptions(batches=1, examples=EXAMPLES)
  )
  metrics = measure(state)
  # One batch for the losses, then 4 x 5 texts, and 3 x 5 pairs, of 4 a batch.
  assert len(seen) == 1 + 5
  store = Store(folder)
  nll, items = twin(program, state, seen[1:], store)
  assert dict(items["mlm"]) == dict.fromkeys(small_corpus.LANGUAGES, EXAMPLES)
  pairs = {f"en-{k}": EXAMPLES for k in ("de", "fr", "ja")}
  assert sum(items["tlm"].values()) == sum(pairs.values())
  for objective in ("mlm", "tlm"):
    means = {k: np.mean(v) for k, v in nll[objective].items()}
    wanted = {k: np.exp(v) for k, v in means.items()}
    wanted["mean"] = np.exp(np.mean(list(means.values())))
    told = {
      name.rpartition("/")[2]: value
      for name, value in metrics.items()
      if name.startswith(f"dev/{objective}/perplexity/")
    }
    assert set(told) == {"mean", *small_corpus.LANGUAGES}
    assert told == pytest.approx(wanted, rel=1e-4)
    assert max(told.values()) > 1.1 * min(told.values())
    # Whether they are counted or not, the losses are of all targets.
    assert metrics[f"dev/{objective}/loss"] > 0


def twin(program: Program, state, batches, store: Store):
  """{objective: {language: -log p of each target}}, and items by language.

  The language of a token is found by looking its sentence up in the records.
  """
  model = dataclasses.replace(program.model, dropout=0.0)
  texts = {
    block.tobytes(): language
    for language, count in store.text_counts.items()
    for block in store.read_text(language, np.arange(count))
  }
  sides = {
    side.tobytes(): language
    for pair, count in store.pair_counts.items()
    for both in store.read_pairs(pair, np.arange(count))
    for side, language in zip(both, pair, strict=True)
  }
  ids, params = store.ids, state.params
  nll = {name: defaultdict(list) for name in program.objectives}
  items = {name: Counter() for name in program.objectives}

  @jax.jit
  def features_of(read):
    hidden = encoder.encode(params, read, model)
    return encoder.lm_features(params["heads"]["masked_lm"], hidden, model)

  for batch, number in batches:
    rng = jax.random.wrap_key_data(state.rng)
    for mark in (0x6576616C, number):  # the evaluation's own
      rng = jax.random.fold_in(rng, mark)
    rows, _ = device_step.corrupt_groups(
      program.objectives, model, rng, batch, 0
    )
    for name in program.objectives:
      read = {k: rows[name][k] for k in ("tokens", "segments", "positions")}
      logp = log_probabilities(params, features_of(read), model)
      slots = jax.device_get(rows[name]["slots"])
      own = batch[name]
      for group, row in np.ndindex(own["tokens"].shape[:2]):
        tokens = own["tokens"][group, row]
        segments = own["segments"][group, row]
        if not own["languages"][group, row].any():
          continue  # there again, to fill the batch
        language_of = {}
        for segment in range(1, segments.max() + 1):
          places = np.flatnonzero(segments == segment)
          if name == "mlm":
            language = texts[tokens[places].tobytes()]
            language_of |= dict.fromkeys(places.tolist(), language)
            items[name][language] += 1
          else:
            middle = np.flatnonzero(tokens[places] == ids.eos)[0] + 1
            halves = places[:middle], places[middle:]
            for half in halves:
              words = tokens[half][~np.isin(tokens[half], (ids.bos, ids.eos))]
              language_of |= dict.fromkeys(
                half.tolist(), sides[words.tobytes()]
              )
            items[name]["-".join(language_of[h[0]] for h in halves)] += 1
        for valid, place, target in zip(
          *(slots[k][group, row] for k in ("valid", "place", "target")),
          strict=True,
        ):
          if valid:
            found = nll[name][language_of[int(place)]]
            found.append(-logp[group, row, place, target])
  return nll, items


def log_probabilities(params, features, model: EncoderConfig) -> np.ndarray:
  """log p of all ids at all tokens."""
  head = params["heads"]["masked_lm"]
  table = np.asarray(encoder.lm_table(params, head), np.float64)
  logits = np.asarray(features, np.float64) @ table.T + head["bias"]
  logits = logits[..., : model.vocab_size]
  logits -= logits.max(axis=-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
