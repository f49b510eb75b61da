"""A SentencePiece model and fairseq's dict.txt: ids by line, worked by hand.

The reference is fairseq's own way: SentencePiece's pieces as strings, each
looked up among the lines, the first of which is 4.
"""

import pytest
import sentencepiece
import small_corpus
import tokenizers

from infoxlm_jax.checkpoint.importers.find_tokenizer import find_tokenizer
from infoxlm_jax.data.prepare.tokenize import encode_flat
from infoxlm_jax.data.tokenizers.base import (
  load_tokenizer,
  save_tokenizer,
  tokenizer_from_files,
)
from infoxlm_jax.data.tokenizers.export import hugging_face_files
from infoxlm_jax.data.tokenizers.trim import trim, used_ids
from infoxlm_jax.errors import InputError

MODEL = small_corpus.TOKENIZER.read_bytes()
SPM = sentencepiece.SentencePieceProcessor(model_proto=MODEL)
IN_ORDER = SPM.id_to_piece(list(range(3, SPM.get_piece_size())))
TEXTS = [
  "In the beginning God created the heavens and the earth.",
  "Am Anfang schuf Gott Himmel und Erde.",
  "元始に言あり ☃☃ ☃",
  "",
]


def dictionary(pieces):
  return "".join(
    f"{piece} {9 + i}\n" for i, piece in enumerate(pieces)
  ).encode()


def folder_with(folder, content):
  folder.mkdir(exist_ok=True)
  (folder / "sentencepiece.bpe.model").write_bytes(MODEL)
  (folder / "dict.txt").write_bytes(content)
  (folder / "model.pt").touch()
  return folder


def looked_up(text, pieces):
  """fairseq's ids: <unk> is 3, the first line 4."""
  ids = {piece: i for i, piece in enumerate(pieces, 4)}
  return [ids.get(piece, 3) for piece in SPM.encode(text, out_type=str)]


def five(ours):
  return ours.bos_id, ours.pad_id, ours.eos_id, ours.unk_id, ours.mask_id


def test_another_order(tmp_path):
  pieces = IN_ORDER[::-1]
  folder = folder_with(tmp_path / "model", dictionary(pieces))
  ours = find_tokenizer(folder / "model.pt")
  assert ours.vocab_size == 8002
  assert five(ours) == (0, 1, 2, 3, 8001)
  assert ours.pieces([4, 8000, 8001]) == [IN_ORDER[-1], ",", "<mask>"]
  # "," is the first of the model and the last of the file.
  assert ours.encode(",").tolist()[-1] == 8000
  for text in TEXTS:
    assert ours.encode(text).tolist() == looked_up(text, pieces)
    ids, places = ours.encode_with_offsets(text)
    assert ids.tolist() == looked_up(text, pieces)
    assert len(places) == len(ids)
  assert ours.decode(ours.encode(TEXTS[0])) == TEXTS[0]
  flat, lengths = encode_flat(ours, TEXTS)
  assert flat.tolist() == [i for t in TEXTS for i in looked_up(t, pieces)]
  assert lengths.sum() == len(flat)
  # Stored and read again, as in prepared data and checkpoints.
  (tmp_path / "data").mkdir()
  save_tokenizer(ours, tmp_path / "data")
  again = load_tokenizer(tmp_path / "data")
  assert again.sha256 == ours.sha256
  assert again.encode(TEXTS[0]).tolist() == looked_up(TEXTS[0], pieces)
  # The file alone says the same where it lies beside its dict.txt.
  beside = load_tokenizer(folder / "sentencepiece.bpe.model")
  assert beside.sha256 == ours.sha256


def test_another_order_exported_and_trimmed(tmp_path):
  pieces = IN_ORDER[::-1]
  ours = load_tokenizer(folder_with(tmp_path, dictionary(pieces)))
  described = hugging_face_files(ours)["tokenizer.json"].decode()
  package = tokenizers.Tokenizer.from_str(described)
  for text in TEXTS:
    assert package.encode(text).ids == [0, *looked_up(text, pieces), 2]
  assert package.token_to_id("<mask>") == 8001
  trimmed = trim(ours, used_ids(ours, TEXTS[:2]))
  small = tokenizer_from_files(trimmed.files, "trimmed")
  assert small.vocab_size < 300
  for text in TEXTS[:2]:
    old = trimmed.kept[small.encode(text)].tolist()
    assert old == looked_up(text, pieces)


def test_the_order_of_the_model_is_xlmr(tmp_path):
  """The released XLM-R and InfoXLM: as without the file."""
  ours = load_tokenizer(folder_with(tmp_path, dictionary(IN_ORDER)))
  assert ours.files == {"tokenizer.model": MODEL}
  assert ours.sha256 == load_tokenizer(small_corpus.TOKENIZER).sha256
  ids = ours.encode(TEXTS[0]).tolist()
  assert ids == looked_up(TEXTS[0], IN_ORDER)


def test_a_dictionary_of_a_corpus(tmp_path):
  """It lacks pieces, has signs unknown to the model, and rows of nothing."""
  text = TEXTS[0]
  lacking = SPM.encode(text, out_type=str)[-2]
  pieces = [p for p in IN_ORDER[::-1] if p != lacking]
  pieces += ["☃☃", "madeupword0000", "madeupword0001"]
  ours = load_tokenizer(folder_with(tmp_path, dictionary(pieces)))
  assert ours.vocab_size == 4 + len(pieces) + 1
  assert 3 in looked_up(text, pieces)
  assert looked_up(TEXTS[2], pieces).count(4 + pieces.index("☃☃")) == 1
  for one in TEXTS:
    assert ours.encode(one).tolist() == looked_up(one, pieces)
  with pytest.raises(InputError, match=r"dict.txt lacks 1 pieces .*'"):
    hugging_face_files(ours)
  ours = load_tokenizer(folder_with(tmp_path, dictionary([*IN_ORDER, "☃☃"])))
  with pytest.raises(InputError, match=r"holds 1 pieces that .*'☃☃'"):
    hugging_face_files(ours)


def test_camembert_own_dictionary(tmp_path):
  """Its first lines replace <unk>, <s>, </s>, so pieces are at file + 4."""
  replaced = "".join(
    f"{name} 999 #fairseq:overwrite\n" for name in ("<unk>", "<s>", "</s>")
  )
  content = replaced.encode() + dictionary(IN_ORDER)
  ours = load_tokenizer(folder_with(tmp_path, content))
  assert five(ours) == (5, 1, 6, 3, 8004)
  ids = [i + 4 for i in SPM.encode(TEXTS[0])]
  assert ours.encode(TEXTS[0]).tolist() == ids
  described = hugging_face_files(ours)["tokenizer.json"].decode()
  package = tokenizers.Tokenizer.from_str(described)
  assert package.encode(TEXTS[0]).ids == [5, *ids, 6]
  # Unknown is 3 though <unk> is replaced, as in transformers' CamemBERT.
  assert ours.encode("☃").tolist()[-1] == 3
  assert package.encode("☃").ids[-2] == 3
  assert ours.pieces(range(7)) == [
    *("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"),
    *("<s>", "</s>"),
  ]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b", 5\n, 4\n", "line 2: the piece ',' is there twice"),
    (b", 5\nx\n", "line 2: 'x' is no piece and its count"),
    (b"\xff 5\n", "byte 1 is not UTF-8"),
  ],
)
def test_broken(tmp_path, content, message):
  with pytest.raises(InputError, match=message):
    load_tokenizer(folder_with(tmp_path, content))


def test_a_tokenizer_from_elsewhere_is_compared(tmp_path):
  folder = folder_with(tmp_path, dictionary(IN_ORDER[::-1]))
  (folder / "sentencepiece.bpe.model").unlink()
  with pytest.raises(InputError, match="dict.txt: numbers the pieces otherw"):
    find_tokenizer(folder / "model.pt", small_corpus.TOKENIZER)
  (folder / "dict.txt").write_bytes(dictionary(IN_ORDER))
  found = find_tokenizer(folder / "model.pt", small_corpus.TOKENIZER)
  assert found.vocab_size == 8002
