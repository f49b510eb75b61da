"""The jobs of gin/evaluate on a small model, against plain numpy."""

import contextlib
import csv
import io
import json
import types

import gin.config
import numpy as np
import pytest
import small_corpus
import small_model

import infoxlm_jax
from infoxlm_jax.main import main

LANGUAGES = ("de", "ja")
POOLINGS = ("mean", "mean_all", "first")


@pytest.fixture(autouse=True, scope="module")
def _leave_no_traces():
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("INFOXLM_COMPILATION_CACHE", "")
    yield
  gin.config.clear_config()


def run(job, folder, *settings):
  """Runs a job; returns its exit code, what it printed, and its results."""
  settings = {
    "MODEL": small_model.folder(),
    "DEVICES": 1,
    "BATCH_TOKENS": 1024,
    "MODEL_DIR": folder,
  } | dict(s.split("=", 1) for s in settings if not s.startswith("--"))
  flags = [f"--gin.{name}={value}" for name, value in settings.items()]
  out = io.StringIO()
  with contextlib.redirect_stdout(out):
    code = main([f"--gin_file=gin/evaluate/{job}.gin", *flags])
  path = folder / "results.json"
  results = json.loads(path.read_text()) if path.exists() else None
  return types.SimpleNamespace(
    code=code, printed=out.getvalue(), results=results, folder=folder
  )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """Verses: en-XX.tsv, dev.en-XX.tsv, and Tatoeba's and BUCC's files."""
  folder = tmp_path_factory.mktemp("data")
  rows = [row for row in small_corpus.table() if row["de"] and row["ja"]]
  texts = {x: [row[x] for row in rows] for x in ("en", *LANGUAGES)}
  for language in LANGUAGES:
    for prefix, part in (("", slice(0, 30)), ("dev.", slice(30, 50))):
      pairs = zip(texts["en"][part], texts[language][part], strict=True)
      (folder / f"{prefix}en-{language}.tsv").write_text(
        "".join(f"{a}\t{b}\n" for a, b in pairs)
      )
  (folder / "laser").mkdir()
  for code, language in (("deu", "de"), ("jpn", "ja")):
    for suffix, side in ((code, language), ("eng", "en")):
      path = folder / "laser" / f"tatoeba.{code}-eng.{suffix}"
      path.write_text("".join(f"{x}\n" for x in texts[side][:20]))
  (folder / "bucc").mkdir()
  for split, part in (("training", slice(0, 30)), ("test", slice(30, 60))):
    stem = folder / "bucc" / f"de-en.{split}"
    for side, order in (("de", 1), ("en", -1)):
      lines = [f"{side}-{n:09}\t{x}\n" for n, x in enumerate(texts[side][part])]
      stem.with_name(f"{stem.name}.{side}").write_text("".join(lines[::order]))
    gold = [f"de-{n:09}\ten-{n:09}\n" for n in range(0, 30, 2)]
    stem.with_name(f"{stem.name}.gold").write_text("".join(gold))
  return types.SimpleNamespace(folder=folder, texts=texts)


@pytest.fixture(scope="module")
def states(data):
  """Hidden states of all texts, [layers + 1, tokens, D] each."""
  model = infoxlm_jax.load(small_model.folder(), devices=1)
  sides = list(data.texts)
  count = len(data.texts["en"])
  together = [text for side in sides for text in data.texts[side]]
  hidden = model.hidden_states(together)
  return {s: hidden[n * count : (n + 1) * count] for n, s in enumerate(sides)}


def pooled(states, layer, pooling):
  select = {
    "mean": lambda x: x[1:-1].mean(0),
    "mean_all": lambda x: x.mean(0),
    "first": lambda x: x[0],
  }[pooling]
  rows = np.stack([select(x[layer]).astype(np.float64) for x in states])
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def accuracy(states, part, layer, pooling):
  """{(language, direction): share} by a plain argmax."""
  english = pooled(states["en"][part], layer, pooling)
  shares = {}
  for language in LANGUAGES:
    cosine = english @ pooled(states[language][part], layer, pooling).T
    own = np.arange(len(cosine))
    shares[language, "en_to_xx"] = (cosine.argmax(1) == own).mean()
    shares[language, "xx_to_en"] = (cosine.argmax(0) == own).mean()
  return shares


@pytest.fixture(scope="module")
def measured(data, tmp_path_factory):
  return run(
    "retrieval",
    tmp_path_factory.mktemp("out") / "new",
    f"PAIRS={data.folder}/en-*.tsv",
    f"DEV={data.folder}/dev.en-*.tsv",
  )


def test_every_layer_and_pooling_is_the_plain_argmax(measured, states):
  assert measured.code == 0
  by_layer = measured.results["retrieval"]["by_layer"]
  seen = set()
  for pooling in POOLINGS:
    for layer in range(4):
      shares = accuracy(states, slice(0, 30), layer, pooling)
      for direction in ("en_to_xx", "xx_to_en"):
        mean = np.mean([shares[x, direction] for x in LANGUAGES])
        value = by_layer[pooling][direction][layer]
        # Vectors of <s> at layer 0 are all equal: ties, which are wrong.
        expected = 0 if (pooling, layer) == ("first", 0) else mean
        assert value == pytest.approx(expected), (pooling, layer, direction)
        seen.add(round(value, 6))
  assert len(seen) > 5


def test_layer_and_pooling_are_chosen_on_dev_and_applied_to_test(
  measured, states
):
  places = [(layer, x) for layer in range(4) for x in POOLINGS]
  places.remove((0, "first"))
  layer, pooling = max(
    places,
    key=lambda at: sum(accuracy(states, slice(30, 50), *at).values()),
  )
  retrieval = measured.results["retrieval"]
  test = retrieval["test"]
  assert (test["layer"], test["pooling"]) == (layer, pooling)
  assert retrieval["chosen_on"] == "layer and pooling chosen on dev"
  shares = accuracy(states, slice(0, 30), layer, pooling)
  for (language, direction), share in shares.items():
    assert test[direction]["by_language"][language] == pytest.approx(share)
  assert retrieval["dev"]["sentences"] == {"de": 20, "ja": 20}


def test_what_is_printed_and_written(measured):
  test = measured.results["retrieval"]["test"]
  where = f"layer {test['layer']} of 3, as Hugging Face's hidden_states count"
  assert where in measured.printed
  assert f"pooling {test['pooling']}; layer and pooling" in measured.printed
  assert "scoring cosine; both directions, en -> xx and" in measured.printed
  assert "candidates: all 30 sentences" in measured.printed
  assert f"data {measured.results['data_hash']}" in measured.printed
  with open(measured.folder / "retrieval.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  assert [row["language"] for row in rows] == ["de", "ja", "mean"]
  mean = test["en_to_xx"]["mean"]
  assert float(rows[2]["en_to_xx"]) == pytest.approx(mean)
  report = (measured.folder / "report.md").read_text()
  assert f"| **mean** | **{100 * mean:.1f}** |" in report
  for name in ("layers", "retrieval"):
    assert f"(figures/{name}.png)" in report
    assert (measured.folder / "figures" / f"{name}.png").stat().st_size > 9000
  assert (measured.folder / "config.gin").exists()


def test_tatoeba_at_one_layer(data, states, tmp_path):
  # A run of the same job may be written over.
  done = run(
    "tatoeba",
    tmp_path / "new",
    f"DATA={data.folder}/laser",
    "LAYER=2",
    "ALL_LAYERS=False",
  )
  assert done.code == 0
  test = done.results["retrieval"]["test"]
  assert (test["layer"], test["pooling"]) == (2, "mean_all")
  expected = accuracy(states, slice(0, 20), 2, "mean_all")
  for (language, direction), share in expected.items():
    assert test[direction]["by_language"][language] == pytest.approx(share)
  groups = done.results["retrieval"]["groups"]
  assert groups["paper_14"]["missing"][:3] == ["ar", "bg", "el"]
  report = (tmp_path / "new" / "report.md").read_text()
  assert "en -> xx (paper) | xx -> en (paper) |" in report
  # German in the paper's table, beside the share measured here.
  share = f"{100 * expected['de', 'en_to_xx']:.1f}"
  assert f"| de | {share} |" in report
  assert "| 20 | 95.1 | 93.9 |" in report
  assert "No mean of paper_14: ar, bg" in report


def test_bucc(data, states, tmp_path):
  done = run("bucc", tmp_path / "new", f"DATA={data.folder}/bucc", "LAYER=0")
  assert done.code == 0
  result = done.results["bucc"]["by_pair"]["de-en"]
  for split, part in (("dev", slice(0, 30)), ("test", slice(30, 60))):
    german, english = (
      pooled(states[x][part], 0, "mean_all") for x in ("de", "en")
    )
    pairs, scores = mined(german @ english.T)
    kept = {p for p in pairs if scores[p] >= result[split]["threshold"]}
    right = sum(a == b and a % 2 == 0 for a, b in kept)
    assert result[split]["mined"] == len(kept)
    assert result[split]["precision"] == pytest.approx(right / len(kept))
    assert result[split]["recall"] == pytest.approx(right / 15)
  assert result["test"]["threshold"] == result["dev"]["threshold"]
  lines = (tmp_path / "new" / "mined.de-en.tsv").read_text().splitlines()
  assert len(lines) == result["test"]["mined"]
  score, first, second = lines[0].split("\t")
  pair = int(first[3:]), int(second[3:])
  assert float(score) == pytest.approx(scores[pair], abs=1e-4)


def mined(cosine, k=4):
  """Ratio scores, and the pairs that the best proposals give, one by one."""
  near = [np.sort(m, axis=1)[:, -k:].mean(axis=1) for m in (cosine, cosine.T)]
  scores = cosine / ((near[0][:, None] + near[1][None, :]) / 2)
  proposals = {(i, int(j)) for i, j in enumerate(scores.argmax(axis=1))}
  proposals |= {(int(i), j) for j, i in enumerate(scores.argmax(axis=0))}
  pairs = []
  for pair in sorted(proposals, key=lambda pair: -scores[pair]):
    if all(pair[0] != a and pair[1] != b for a, b in pairs):
      pairs.append(pair)
  return pairs, scores


@pytest.mark.parametrize(
  ("job", "settings", "message"),
  [
    ("retrieval", ("PAIRS=none/*.tsv",), "no file matches"),
    (
      "retrieval",
      ("PAIRS={data}/en-*.tsv", "SCORING=margin"),
      "scoring 'margin' is none of",
    ),
    (
      "retrieval",
      ("PAIRS={data}/en-*.tsv", "DEV={data}/en-*.tsv", "ALL_LAYERS=False"),
      "none can be chosen on DEV",
    ),
    ("retrieval", ("PAIRS={data}/en-*.tsv", "LAYER=4"), "has 3 layers"),
    (
      "retrieval",
      ("PAIRS={data}/en-*.tsv", "MAX_GIB=1e-6"),
      "more than MAX_GIB",
    ),
    ("tatoeba", ("DATA={data}/laser", "LANGUAGES=paper_14"), "no files for ar"),
    ("bucc", ("DATA={data}/bucc", "DEV=sample"), "no files of the split"),
    ("bucc", ("DATA={data}/bucc", "DEV=None"), "set THRESHOLD, or DEV"),
  ],
)
def test_refused_before_anything_is_written(
  data, tmp_path, capsys, job, settings, message
):
  folder = tmp_path / "new"
  settings = [s.format(data=data.folder) for s in settings]
  assert run(job, folder, *settings).code == 2
  error = capsys.readouterr().err
  assert message in error
  assert error.count("error: ") == 1
  assert not folder.exists()


def test_a_training_run_is_not_overwritten(data, tmp_path, capsys):
  (tmp_path / "results.json").write_text('{"steps": 7}')
  done = run("retrieval", tmp_path, f"PAIRS={data.folder}/en-*.tsv")
  assert done.code == 2
  assert "not of an earlier retrieval job" in capsys.readouterr().err
  assert done.results == {"steps": 7}


def test_a_dry_run_says_what_it_would_do(data, tmp_path, capsys):
  flags = [
    f"--gin.PAIRS={data.folder}/en-*.tsv",
    "--gin.MODEL=nowhere",
    f"--gin.MODEL_DIR={tmp_path / 'new'}",
  ]
  file = "--gin_file=gin/evaluate/retrieval.gin"
  assert main([file, *flags, "--dry_run"]) == 0
  printed = capsys.readouterr().out
  assert f"test de: 30 pairs, {data.folder}/en-de.tsv" in printed
  assert "the last layer and mean_all, not chosen on dev pairs" in printed
  assert not (tmp_path / "new").exists()
