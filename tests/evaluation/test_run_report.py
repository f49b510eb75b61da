"""The report as one page, and the pictures of a run that goes on."""

import base64
import inspect
from html.parser import HTMLParser

import numpy as np

from infoxlm_jax.evaluation.report import (
  figures,
  final_report,
  retrieval_figures,
  start_scores,
)
from infoxlm_jax.evaluation.report.results_file import write_report
from infoxlm_jax.evaluation.retrieval import sweep
from infoxlm_jax.evaluation.retrieval_eval import POOLINGS, Scored
from infoxlm_jax.evaluation.similarity import similarities


def _model(noise):
  """Vectors of 40 sentences in four languages, of which ja lacks five."""
  random = np.random.default_rng(0)
  meaning = random.normal(size=(3, 2, 40, 6))
  vectors, rows = {}, {}
  for language in ("de", "en", "fr", "ja"):
    first = 5 if language == "ja" else 0
    own = meaning + noise * random.normal(size=meaning.shape)
    vectors[language] = own[:, :, first:].astype(np.float32)
    rows[language] = np.arange(first, 40)
  return vectors, rows


def _kept(folder):
  """The folder of a run that was begun by a process that is gone."""
  vectors, rows = _model(3.0)
  retrieval = sweep(vectors, rows, POOLINGS)
  scores = {"dev": Scored(vectors, rows, retrieval)}
  start_scores.keep_start(folder, scores)
  return similarities(vectors, rows, 2, 1)


def test_cosines_of_the_start_are_kept(tmp_path, capsys):
  """A run that is continued draws them, and has no vectors of then."""
  wanted = _kept(tmp_path)
  kept = start_scores.read_similarity(tmp_path, "dev", 2, 1)
  np.testing.assert_array_equal(kept.positives, wanted.positives)
  np.testing.assert_array_equal(kept.negatives, wanted.negatives)
  assert start_scores.read_similarity(tmp_path / "old", "dev", 2, 1) is None
  assert capsys.readouterr().out == ""
  for content in (b"", b"PK", b"x" * 99):
    (tmp_path / "start_cosines.npz").write_bytes(content)
    assert start_scores.read_similarity(tmp_path, "dev", 2, 1) is None
    assert "start_cosines.npz is damaged" in capsys.readouterr().out


def test_a_continued_run_draws_its_start(tmp_path, monkeypatch):
  """similarity.png has a left side, and all titles say how far the run is."""
  _kept(tmp_path)
  start = start_scores.read_start(tmp_path)
  drawn = {}
  for module in (figures, retrieval_figures):
    for name in ("plot_similarity", "plot_sentences", "plot_retrieval"):
      if hasattr(module, name):
        own = inspect.signature(getattr(module, name))
        monkeypatch.setattr(
          module,
          name,
          lambda *a, _own=own, _name=name, **k: drawn.update(
            {_name: _own.bind(*a, **k).arguments}
          ),
        )
  vectors, rows = _model(0.3)
  now = {"dev": Scored(vectors, rows, sweep(vectors, rows, POOLINGS))}
  final_report.draw(tmp_path, start, now, "update 500")
  assert {given["name"] for given in drawn.values()} == {"update 500"}
  assert len(drawn["plot_similarity"]["start"].positives) == 40 + 40 + 35
  assert drawn["plot_retrieval"]["start"].languages == ("de", "fr", "ja")


class Page(HTMLParser):
  """The cells, pictures and text of a page, read by Python's own parser."""

  def __init__(self, text):
    super().__init__()
    self.cells, self.sources, self.tags, self._open = [], [], [], []
    self.text = ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self._open.append(tag)
    self.sources += [v for k, v in attrs if k in ("src", "href")]
    if tag == "td":
      self.cells.append("")

  def handle_endtag(self, tag):
    while self._open and self._open.pop() != tag:
      pass

  def handle_data(self, data):
    self.text += data
    if "td" in self._open:
      self.cells[-1] += data


def test_the_page_is_one_file_with_the_same_content(tmp_path):
  near = similarities(*_model(0.3), 1, 0)
  picture = figures.plot_similarity(near, tmp_path / "figures")
  results = {"steps": 1600, "model": "a<script>alert(1)</script>b"}
  sections = ["| language | rate |", "| :-- | --: |", "| **de** | 61.2 |"]
  write_report(
    tmp_path, results, [picture], title="Report of a & b", sections=sections
  )
  page = Page((tmp_path / "report.html").read_text())
  for cell in ("1,600", "61.2", "a<script>alert(1)</script>b"):
    assert cell in page.cells, page.cells
  assert "script" not in page.tags and "link" not in page.tags
  assert "Report of a & b" in page.text and "Figures" in page.text
  # No other file and no server: the picture is inside.
  (source,) = page.sources
  kind, _, content = source.partition(",")
  assert kind == "data:image/png;base64"
  assert base64.b64decode(content) == picture.read_bytes()
