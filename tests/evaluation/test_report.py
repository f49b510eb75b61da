"""Tables, results.json, report.md, the pictures, and the collapse alarm."""

import json
import math

import numpy as np
import pytest

from infoxlm_jax.errors import InputError
from infoxlm_jax.evaluation.collapse import collapsed, health_notes
from infoxlm_jax.evaluation.report import (
  curves,
  figures,
  held_out_curves,
  retrieval_figures,
  tables,
)
from infoxlm_jax.evaluation.report.results_file import (
  read_results,
  write_report,
  write_results,
)
from infoxlm_jax.evaluation.retrieval import sweep
from infoxlm_jax.evaluation.similarity import similarities

HEALTHY = {
  "xlco/accuracy": 0.85,
  "xlco/chance": 1 / 48,
  "xlco/spread": 0.8,
  "xlco/queue_similarity_new": 0.10,
  "xlco/queue_similarity_old": 0.05,
  "xlco/positive_similarity": 0.7,
}
# What a batch of equal vectors gives: every cosine is 1, every key ties.
CONSTANT = {
  "xlco/accuracy": 0.0,
  "xlco/chance": 1 / 48,
  "xlco/spread": 0.0,
  "xlco/queue_similarity_new": 1.0,
  "xlco/queue_similarity_old": 0.6,
  "xlco/positive_similarity": 1.0,
}


def _at(de, fr, layer=2):
  return {
    "en_to_xx": {"mean": (de + fr) / 2, "by_language": {"de": de, "fr": fr}},
    "xx_to_en": {"mean": 0.5, "by_language": {"de": 0.25, "fr": 0.75}},
    "layer": layer,
    "pooling": "mean",
    "sentences": {"de": 1000, "fr": 500},
  }


def _rows(metrics, steps, prefix="train/"):
  return [
    {"step": step, "time": float(step)}
    | {prefix + name: value for name, value in metrics.items()}
    for step in steps
  ]


def test_healthy_numbers_raise_no_alarm():
  assert collapsed(HEALTHY) is None


def test_constant_vectors_raise_the_alarm():
  assert "nearly all alike" in collapsed(CONSTANT)


@pytest.mark.parametrize(
  "changed, word",
  [
    ({"xlco/spread": 0.019}, "spread"),
    ({"xlco/spread": 0.021}, None),
    # Three times 1/48 is 6.25 %.
    ({"xlco/accuracy": 0.0624}, "chance"),
    ({"xlco/accuracy": 0.0626}, None),
    # Four keys: three times chance would be 75 %; half-way to 1 is 62.5 %.
    ({"xlco/chance": 0.25, "xlco/accuracy": 0.62}, "chance"),
    ({"xlco/chance": 0.25, "xlco/accuracy": 0.63}, None),
    # One key is always found, which says nothing.
    ({"xlco/chance": 1.0, "xlco/accuracy": 1.0}, None),
    ({"xlco/accuracy": math.nan}, "finite"),
    ({"xlco/spread": math.inf}, "finite"),
  ],
)
def test_thresholds_of_the_alarm(changed, word):
  reason = collapsed(HEALTHY | changed)
  assert reason is None if word is None else word in reason


def _renamed(metrics, name):
  return {k.replace("xlco/", f"{name}/"): v for k, v in metrics.items()}


def test_the_alarm_goes_by_the_measures_not_by_a_name():
  other = _renamed(CONSTANT, "align")
  assert collapsed(other) == collapsed(CONSTANT)
  rows = _rows(other, range(10, 500, 10))
  assert health_notes(rows) == health_notes(_rows(CONSTANT, range(10, 500, 10)))


def test_each_of_two_contrasts_is_judged_by_its_name(tmp_path):
  both = HEALTHY | _renamed(CONSTANT, "align")
  assert collapsed(both) == f"align: {collapsed(CONSTANT)}"
  rows = _rows(both | {"mlm/accuracy": 0.0}, range(10, 500, 10))
  well, badly, age = health_notes(rows)
  assert well.startswith("xlco: The contrast shows no collapse")
  assert badly.startswith("align: THE CONTRAST HAS COLLAPSED")
  assert age.startswith("align: Queue keys")
  picture = curves.plot_contrast_health(rows, tmp_path, "align")
  assert picture.name == "contrast_health_align.png"


def test_without_contrast_there_is_nothing_to_judge():
  assert collapsed({"loss": 3.0}) is None
  notes = health_notes([{"step": 1, "train/loss": 3.0}])
  assert notes == ["No contrast was trained in this run (or none logged)."]


def test_notes_of_a_healthy_run_hold_its_numbers():
  # Until the warm-up ends the vectors may be all alike.
  rows = _rows(CONSTANT, range(10, 110, 10))
  rows += _rows(HEALTHY, range(110, 1000, 10))
  notes = health_notes(rows, warmup_steps=100)
  assert len(notes) == 1
  assert "no collapse" in notes[0]
  assert "85.0 %" in notes[0] and "0.80" in notes[0]


def test_notes_of_a_collapse_at_the_end():
  rows = _rows(HEALTHY, range(10, 500, 10))
  rows += _rows(CONSTANT, range(500, 1000, 10))
  notes = health_notes(rows, warmup_steps=100)
  assert "COLLAPSED" in notes[0]
  # .6 to the oldest and 1 to the newest: age shows.
  assert "age" in notes[1] and "0.60" in notes[1]


def test_notes_of_a_run_that_recovered():
  rows = _rows(CONSTANT, range(10, 500, 10))
  rows += _rows(HEALTHY, range(500, 2000, 10))
  notes = health_notes(rows)
  assert "no collapse" in notes[0]
  assert "recovered" in notes[1]


def test_one_bad_batch_at_the_end_is_no_collapse():
  rows = _rows(HEALTHY, range(10, 1000, 10))
  rows += _rows(HEALTHY | {"xlco/accuracy": 0.0}, [1000])
  assert "no collapse" in health_notes(rows)[0]


def test_numbers_that_were_not_finite_are_noted():
  rows = _rows(HEALTHY, range(10, 1000, 10))
  for row in rows[5:7]:
    row["train/loss"] = None
    row["non_finite"] = {"train/loss": "nan"}
  notes = health_notes(rows)
  assert notes[0] == (
    "train/loss was not a finite number 2 times, first at step 60."
  )


def test_a_run_within_the_warm_up_is_not_judged():
  notes = health_notes(_rows(CONSTANT, [1, 2]), warmup_steps=100)
  assert len(notes) == 1 and "not judged" in notes[0]


def test_table_of_languages():
  text = tables.format_table(_at(0.6, 0.8), _at(0.02, 0.04, layer=0))
  assert text.splitlines() == [
    "retrieval, %       mean    de     fr",
    "------------------------------------",
    "en -> xx  step 0    3.0   2.0    4.0",
    "en -> xx  end      70.0  60.0   80.0",
    # Wilson for 400 of 500: (.8 + .0038 -+ .0353) / 1.0077 = .763, .833; of
    # the mean for 350 of 500.
    "  95 % interval   66-74        76-83",
    "xx -> en  step 0   50.0  25.0   75.0",
    "xx -> en  end      50.0  25.0   75.0",
    "  95 % interval   46-54        71-79",
    "sentences                1000    500",
    # (1/1000 + 1/500) / 2 = .15 %
    "Read at step 0: layer 0, mean; end: layer 2, mean. Chance is 0.15 %.",
  ]


def test_intervals():
  # Published for 0 of 10 and 10 of 10: 0 and 1 / (1 + 10 / z^2) = .278.
  assert tables.interval(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
  assert tables.interval(1, 10) == pytest.approx((0.7225, 1), abs=1e-4)
  assert tables.interval(0.5, 1000) is None
  assert tables.interval(None, 10) is None


def test_many_languages_are_broken_over_blocks():
  codes = [f"l{number:02d}" for number in range(30)]
  result = {
    direction: {"mean": 0.5, "by_language": dict.fromkeys(codes, 0.5)}
    for direction in ("en_to_xx", "xx_to_en")
  }
  result |= {"layer": 1, "pooling": "mean"}
  result |= {"sentences": dict.fromkeys(codes, 100)}
  text = tables.format_table(result)
  assert max(map(len, text.splitlines())) <= 100
  assert all(text.count(code) == 1 for code in codes)


def test_table_of_layers():
  by_layer = {"mean": {"en_to_xx": [0.01, 0.5], "xx_to_en": [0.02, 0.6]}}
  assert tables.format_by_layer(by_layer).splitlines() == [
    "layer           mean en -> xx end  mean xx -> en end",
    "----------------------------------------------------",
    "0 (embeddings)                1.0                2.0",
    "1                            50.0               60.0",
  ]


def test_results_are_read_back(tmp_path):
  assert read_results(tmp_path) is None
  results = {
    "retrieval": {"test": _at(0.6, 0.8)},
    "steps": np.int64(7),
    "seconds": np.float32(1.5),
    "bad": math.nan,
    "list": np.array([1.0, 2.0]),
  }
  path = write_results(tmp_path, results)
  assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]
  assert "NaN" not in path.read_text()
  results = read_results(tmp_path)
  assert results["retrieval"]["test"]["en_to_xx"]["mean"] == pytest.approx(0.7)
  assert results["retrieval"]["test"] == json.loads(json.dumps(_at(0.6, 0.8)))
  assert (results["steps"], results["seconds"]) == (7, 1.5)
  assert (results["bad"], results["list"]) == (None, [1.0, 2.0])


def test_broken_results_are_named(tmp_path):
  (tmp_path / "results.json").write_text('{"retrieval": ')
  with pytest.raises(InputError, match=r"results\.json"):
    read_results(tmp_path)


def test_report_holds_the_numbers_and_the_figures(tmp_path):
  results = {
    "retrieval": {
      "test": _at(0.612, 0.834),
      "test_step_0": _at(0.021, 0.043),
      "dev": _at(0.555, 0.666),
      "by_layer": {"mean": {"en_to_xx": [0.111], "xx_to_en": [0.222]}},
    },
    "steps": 1600,
    "tokens": 10_700_000,
    "seconds": 421.6,
    "parameters": 3_200_000,
    "seed": 3,
    "data_hash": "abc123",
    "objectives": "mlm+tlm+xlco",
  }
  picture = tmp_path / "figures" / "losses.png"
  path = write_report(tmp_path, results, [picture, None], ["All is well."])
  lines = path.read_text().splitlines()
  assert "- All is well." in lines
  for line in (
    "| steps | 1,600 |",
    "| tokens seen | 10,700,000 |",
    "| time | 7:02 (422 s) |",
    "| parameters | 3,200,000 |",
    "| seed | 3 |",
    "| data (hash) | abc123 |",
    "| objectives | mlm+tlm+xlco |",
    "| de | 2.1 | 61.2 | 25.0 | 25.0 | 1000 |",
    "| fr | 4.3 (3-6) | 83.4 (80-86) | 75.0 (71-79) | 75.0 (71-79) | 500 |",
    "| **mean** | **3.2** | **72.3** | **50.0** | **50.0** |  |",
    "| de | 55.5 | 25.0 | 1000 |",
    "| 0 (embeddings) | 11.1 | 22.2 |",
    "![losses](figures/losses.png)",
  ):
    assert line in lines
  # Chance: the mean of 1/1000 and 1/500.
  assert "Chance is 1 in 500 to 1,000: 0.15 %." in path.read_text()


def test_report_of_a_run_without_retrieval(tmp_path):
  path = write_report(tmp_path, {"steps": 5}, title="A short run")
  assert path.read_text().startswith("# A short run\n")
  assert "| steps | 5 |" in path.read_text()


def _model(noise, seed=0, layers=3, count=40, size=6):
  random = np.random.default_rng(seed)
  meaning = random.normal(size=(layers, 2, count, size))
  vectors, rows = {}, {}
  for language in ("de", "en", "fr", "ja"):
    own = noise * random.normal(size=meaning.shape)
    vectors[language] = (meaning + own).astype(np.float32)
    rows[language] = np.arange(count)
  rows["ja"] = rows["ja"][5:]
  vectors["ja"] = vectors["ja"][:, :, 5:]
  return vectors, rows


def _check_picture(path, folder):
  from matplotlib import image

  assert path.parent == folder
  pixels = image.imread(path)[..., :3]
  assert pixels.shape[0] > 300 and pixels.shape[1] > 500
  # Something is drawn, and not everything is.
  ink = (pixels.min(axis=-1) < 0.9).mean()
  assert 0.005 < ink < 0.95


def test_pictures_of_vectors(tmp_path):
  start, end = _model(3.0), _model(0.3)
  sweeps = [sweep(*model, ["mean", "first"]) for model in (start, end)]
  near = [similarities(*model, 1, 0) for model in (start, end)]
  for path in (
    retrieval_figures.plot_retrieval(
      sweeps[1], tmp_path, "first", start=sweeps[0]
    ),
    figures.plot_similarity(near[1], tmp_path, start=near[0]),
    figures.plot_sentences((*end, 1, 0), tmp_path, start=(*start, 1, 0)),
    retrieval_figures.plot_layers(sweeps[1], tmp_path),
  ):
    _check_picture(path, tmp_path)


def test_pictures_of_metrics(tmp_path):
  losses = {"loss": 5.0, "mlm/loss": 3.0, "xlco/loss": 2.0}
  rows = _rows(HEALTHY | losses, range(200))
  rows += _rows({"loss": 6.0, "mlm/loss": None}, [50, 100], prefix="dev/")
  _check_picture(curves.plot_losses(rows, tmp_path), tmp_path)
  _check_picture(curves.plot_contrast_health(rows, tmp_path), tmp_path)
  dev = []
  for step in range(0, 500, 100):
    values = {f"mlm/perplexity/{k}": 50 - step / 20 for k in ("en", "mean")}
    values |= {f"retrieval_by_layer/mean/{n}": n / 13 for n in range(13)}
    dev += _rows(values, [step], prefix="dev/")
  _check_picture(held_out_curves.plot_perplexity(dev, tmp_path), tmp_path)
  _check_picture(
    held_out_curves.plot_layers_over_steps(dev, tmp_path), tmp_path
  )


def test_nothing_to_draw_is_none(tmp_path):
  rows = [{"step": 1, "train/lr": 0.1}]
  assert curves.plot_losses(rows, tmp_path) is None
  assert curves.plot_contrast_health(rows, tmp_path) is None
  assert held_out_curves.plot_perplexity(rows, tmp_path) is None
  assert held_out_curves.plot_layers_over_steps(rows, tmp_path) is None
  vectors, rows = _model(1.0)
  rows["ja"] = rows["ja"] + 1000
  assert figures.plot_sentences((vectors, rows, 1, 0), tmp_path) is None
  assert list(tmp_path.iterdir()) == []


def test_pca_finds_the_directions_of_a_known_cloud():
  # Spread 3 along (1, 1), 1 along (1, -1): variances 9 and 1 of 10.
  turn = np.array([[1, 1, 0], [1, -1, 0]]) / math.sqrt(2)
  corners = np.array([[3, 1], [3, -1], [-3, 1], [-3, -1]], float)
  points = corners @ turn + [5.0, 6.0, 7.0]
  spots, share = figures.pca(points)
  np.testing.assert_allclose(share, [0.9, 0.1], atol=1e-12)
  np.testing.assert_allclose(np.abs(spots), np.abs(corners), atol=1e-12)
