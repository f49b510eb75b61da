"""What prepare shows while it works, and what it counts that by."""

import gzip
import io

import numpy as np
import pytest

from infoxlm_jax.data.corpora import consumed, fairseq, sources
from infoxlm_jax.runtime.phase import Phase


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


def phase(total, stream=None, **options):
  stream, clock = stream or io.StringIO(), Clock()
  return Phase("read", total, stream=stream, clock=clock, **options), clock


def said(shown):
  return shown._stream.getvalue()


def test_a_line_every_ten_seconds():
  shown, clock = phase(1000)
  with shown:
    for second in range(1, 36):
      clock.now += 1
      shown.reach(20 * second, tokens=3000)
  assert said(shown).split("\n") == [
    "read  20 %  ETA 40 s  3.0k tokens/s",
    "read  40 %  ETA 30 s  3.0k tokens/s",
    "read  60 %  ETA 20 s  3.0k tokens/s",
    "read: done in 35 s  3.0k tokens/s",
    "",
  ]


def test_what_was_done_before_does_not_count():
  """Else a restart promises an end that it cannot keep."""
  shown, clock = phase(1000)
  with shown:
    clock.now += 1
    shown.skip(800)
    clock.now += 20
    shown.reach(850, tokens=2000)
    assert said(shown) == "read  85 %  ETA 1:00  0.1k tokens/s\n"


def test_a_size_that_is_not_known():
  shown, clock = phase(None)
  with shown:
    clock.now += 10
    shown.reach(5, tokens=10_000)
    assert said(shown) == "read  1.0k tokens/s\n"


@pytest.mark.parametrize("total", [0, 5])
def test_what_is_quick_or_empty_says_nothing(total):
  shown, _ = phase(total)
  with shown:
    shown.reach(total)
  assert said(shown) == ""
  shown, clock = phase(5, enabled=False)
  with shown:
    clock.now += 60
    shown.reach(2)
  assert said(shown) == ""


def test_a_bar_on_a_terminal():
  shown, clock = phase(10, Terminal())
  with shown:
    clock.now += 4
    shown.reach(2, tokens=8000)
    assert "read  20 %  ETA 16 s  2.0k tokens/s |" in said(shown)
  assert "read 100 %" in said(shown)


def test_an_error_is_not_called_done():
  shown, clock = phase(10)
  with pytest.raises(OSError), shown:
    clock.now += 11
    shown.reach(2)
    raise OSError
  assert "done" not in said(shown)


def test_readers_consume_their_sizes(tmp_path):
  """Whatever the format, packed or not: only then is an ETA one."""
  pair = "a\tb\n" * 900
  (tmp_path / "en-fr.tsv").write_text(pair)
  (tmp_path / "en-de.tsv.gz").write_bytes(gzip.compress(pair.encode()))
  for x in ("en", "fr"):
    (tmp_path / f"m.en-fr.{x}").write_text("text\n" * 70_000)
  body = '<tu><tuv xml:lang="en"><seg>a</seg></tuv></tu>' * 50
  body += body.replace("en", "fr")
  both = '<tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="fr">'
  both += "<seg>b</seg></tuv></tu>"
  (tmp_path / "a.tmx").write_text(f"<tmx><body>{body}{both}</body></tmx>")
  for corpus in (
    sources.Tsv(f"{tmp_path}/*.tsv*"),
    sources.Moses(f"{tmp_path}/m.en-fr"),
    sources.Tmx(f"{tmp_path}/a.tmx"),
  ):
    before = consumed.so_far()
    assert sum(1 for _ in corpus.examples("train"))
    assert consumed.so_far() - before == corpus.size("train"), corpus


def test_rows_consume_their_ids(tmp_path):
  from test_data_fairseq import save

  save(tmp_path / "x", [[0, 5, 2, 6, 2], [0, 9, 2]])
  before = consumed.so_far()
  size = sources.FairseqBinary(str(tmp_path / "x"), "mlm").size("train")
  assert size == 8 * np.dtype("<i4").itemsize
  (index,) = fairseq.find_indexes(str(tmp_path / "x"), "train")
  found = list(fairseq.read_sentences(fairseq.Rows(index)))
  assert [x.tolist() for x in found] == [[5], [6], [9]]
  assert consumed.so_far() - before == size
