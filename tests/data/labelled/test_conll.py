"""Files of tagged words in exactly the forms in which they are published."""

import gzip

import pytest

from infoxlm_jax.data.labelled import conll, conll_folder
from infoxlm_jax.errors import InputError

XTREME = "R.H.\tB-ORG\nSaunders\tI-ORG\n(\tO\n\nUpstream\tO\n\n"
WIKIANN = "en:R.H.\tB-ORG\nen:Saunders\tI-ORG\nen::\tO\n\nen:Up\tO\n\n"
CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER

"""
CONLLU = """# newdoc id = weblog-1
# sent_id = 1
# text = Vámonos al mar # no comment
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\tMood=Imp\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\tSpaceAfter=No
5.1\tvamos\tir\tVERB\t_\t_\t_\t_\t1:conj\t_

# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_

"""


def pairs(tagged):
  return [[(row.word, row.tag) for row in one] for one in tagged.sentences]


def read(tmp_path, text, name="train-en.tsv"):
  path = tmp_path / name
  path.write_text(text, "utf-8")
  return conll.read(path, "en")


def test_xtreme_and_wikiann(tmp_path):
  first = [("R.H.", "B-ORG"), ("Saunders", "I-ORG")]
  assert pairs(read(tmp_path, XTREME)) == [
    [*first, ("(", "O")],
    [("Upstream", "O")],
  ]
  assert pairs(read(tmp_path, WIKIANN, "train")) == [
    [*first, (":", "O")],
    [("Up", "O")],
  ]


def test_conll_2003(tmp_path):
  tagged = read(tmp_path, CONLL_2003, "eng.train")
  assert pairs(tagged) == [
    [("EU", "B-ORG"), ("rejects", "O"), ("German", "B-MISC")],
    [("Peter", "B-PER"), ("Blackburn", "I-PER")],
  ]
  assert [row.line for row in tagged.sentences[1]] == [7, 8]


def test_conllu(tmp_path):
  assert pairs(read(tmp_path, CONLLU, "es_x-ud-dev.conllu")) == [
    [
      ("Vamos", "VERB"),
      ("nos", "PRON"),
      ("a", "ADP"),
      ("el", "DET"),
      ("mar", "NOUN"),
    ],
    [("#", "SYM")],
  ]


def test_words_may_hold_spaces_and_be_odd(tmp_path):
  """A last line that does not end, CR LF, U+2028 and a space in a word."""
  text = "1 000\tB-A\r\nx\u2028y\tO\r\n\r\n\u200b\tO"
  assert pairs(read(tmp_path, text)) == [
    [("1 000", "B-A"), ("x\u2028y", "O")],
    [("\u200b", "O")],
  ]


@pytest.mark.parametrize(
  ("text", "name", "message"),
  [
    ("a\tO\nb\n", "train-en.tsv", r"line 2: 1 cells \(b\) where 2"),
    ("a\tO\nb\tO\tO\n", "train-en.tsv", "line 2: 3 cells"),
    ("a\tO\nb\t \n", "train-en.tsv", "line 2: the word 'b' has no tag"),
    ("\n\n", "train-en.tsv", "has no rows"),
    ("en:a\tO\nb\tO\n", "train", "line 2: the word 'b' does not .* 'en:'"),
    ("a NN O\nb O\n", "eng.train", "line 2: 2 cells"),
    ("EU\n", "eng.train", "line 1: 1 cells"),
    ("1\ta\ta\tX\n", "a.conllu", "line 1: 4 cells .* where 10"),
    ("x" + "\t_" * 9, "a.conllu", "line 1: 'x' is no number of a word"),
    ("1" + "\t_" * 9, "a.conllu", "line 1: the word '_' has no UPOS"),
  ],
)
def test_a_broken_file(tmp_path, text, name, message):
  with pytest.raises(InputError, match=f"{name}.*{message}"):
    read(tmp_path, text, name)


def test_bio(tmp_path):
  """Begin with I-: at the start, after O, after another type; by hand."""
  tags = "I-A I-A O I-A B-A I-A I-B B-B O".split()
  text = "".join(f"w\t{tag}\n" for tag in tags) + "\nw\tI-B\n"
  assert conll.check_bio(read(tmp_path, text)) == 4
  with pytest.raises(InputError, match="line 2: the tag 'S-A' is neither"):
    conll.check_bio(read(tmp_path, "w\tO\nw\tS-A\n"))


def test_a_tag_that_train_has_not(tmp_path):
  with pytest.raises(InputError, match="train-en.tsv, line 2: .*'I-ORG'.*O"):
    conll.check_tags(read(tmp_path, XTREME), ["B-ORG", "O"])


def test_layouts(tmp_path):
  def found(*names):
    folder = names[0].replace("/", "_")
    for name in names:
      path = tmp_path / folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(gzip.compress(b"a\tO\n"))
    files = conll_folder.find(tmp_path / folder)
    return {
      (split, language): [path.name for path in paths]
      for split, own in files.items()
      for language, paths in own.items()
    }

  assert found("train-en.tsv", "dev-en.tsv.gz", "test-zh.tsv") == {
    ("train", "en"): ["train-en.tsv"],
    ("dev", "en"): ["dev-en.tsv.gz"],
    ("test", "zh"): ["test-zh.tsv"],
  }
  assert found("en/train", "en/extra", "zh-min-nan/test") == {
    ("train", "en"): ["train"],
    ("test", "zh-min-nan"): ["test"],
  }
  assert found("eng.train", "eng.testa", "ned.testb") == {
    ("train", "en"): ["eng.train"],
    ("dev", "en"): ["eng.testa"],
    ("test", "nl"): ["ned.testb"],
  }
  assert found(
    "UD_English-EWT/en_ewt-ud-train.conllu",
    "UD_English-GUM/en_gum-ud-train.conllu",
    "UD_Arabic-PADT/ar_padt-ud-test.conllu",
  ) == {
    ("train", "en"): ["en_ewt-ud-train.conllu", "en_gum-ud-train.conllu"],
    ("test", "ar"): ["ar_padt-ud-test.conllu"],
  }


def test_layouts_that_are_refused(tmp_path):
  with pytest.raises(InputError, match="is no folder"):
    conll_folder.find(tmp_path / "none")
  with pytest.raises(InputError, match="no file with a known name"):
    conll_folder.find(tmp_path)
  for name in ("train-en.tsv", "train-en"):
    (tmp_path / name).touch()
  with pytest.raises(InputError, match="both the train file of 'en'"):
    conll_folder.find(tmp_path)
  (tmp_path / "train-en").unlink()
  files = conll_folder.find(tmp_path)
  with pytest.raises(InputError, match=r"DEV_LANGUAGES.*no dev file of de"):
    conll_folder.chosen(files, "dev", ("de",), "DEV_LANGUAGES")
