"""Finds files of tagged sentences in the layouts in which they are published.

    train-en.tsv  dev-en.tsv  test-en.tsv          XTREME: panx/, udpos/
    en/train  en/dev  en/test                      WikiANN (PAN-X) unpacked
    eng.train  eng.testa  eng.testb                CoNLL-2002 and 2003
    UD_English-EWT/en_ewt-ud-train.conllu          Universal Dependencies

Files may be compressed. Treebanks of one language are read together.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from infoxlm_jax.data.corpora.file_names import is_packed
from infoxlm_jax.data.labelled.conll import is_conllu
from infoxlm_jax.errors import InputError

SPLITS = ("train", "dev", "test")
_LANGUAGE = r"(?P<language>[a-z]{2,3}(?:-[A-Za-z]+)*)"
_SPLIT = r"(?P<split>train|dev|test)"
# Of a path below the folder, without .gz and the like.
_LAYOUTS = tuple(
  re.compile(pattern)
  for pattern in (
    rf"{_SPLIT}-{_LANGUAGE}(?:\.tsv)?",
    rf"{_LANGUAGE}[/-]{_SPLIT}(?:\.tsv)?",
    rf"(?:.*/)?{_LANGUAGE}_\w+-ud-{_SPLIT}\.conllu",
    r"(?P<language>eng|deu|esp|ned)\.(?P<split>train|testa|testb)",
  )
)
_CONLL = {"eng": "en", "deu": "de", "esp": "es", "ned": "nl"}
_CONLL_SPLITS = {"testa": "dev", "testb": "test"}

Files = Mapping[str, Mapping[str, list[Path]]]  # {split: {language: paths}}


def find(folder: str | Path | None) -> Files:
  """The files of each split and language.

  Raises:
    InputError: there is no such folder, none of its files has a known name, or
      two of them, which are no treebanks, are of one split and language.
  """
  if folder is None:  # as in a dry run
    raise InputError("DATA has no value; set --gin.DATA=FOLDER")
  root = Path(folder)
  if not root.is_dir():
    raise InputError(f"DATA={str(folder)!r} is no folder.")
  out: dict[str, dict[str, list[Path]]] = {split: {} for split in SPLITS}
  for path in sorted(root.rglob("*")):
    name = path.relative_to(root).as_posix()
    if is_packed(path):
      name = name.removesuffix(path.suffix)
    matched = (layout.fullmatch(name) for layout in _LAYOUTS)
    match = next((one for one in matched if one), None)
    if match and path.is_file():
      language = _CONLL.get(match["language"], match["language"])
      split = _CONLL_SPLITS.get(match["split"], match["split"])
      same = out[split].setdefault(language, [])
      if same and not (is_conllu(path) and is_conllu(same[0])):
        raise InputError(
          f"{same[0]} and {path} are both the {split} file of {language!r};"
          " leave one of them in DATA."
        )
      same.append(path)
  if not any(out.values()):
    raise InputError(
      f"DATA={str(folder)!r} holds no file with a known name: expected"
      " train-en.tsv, en/train, eng.train or en_ewt-ud-train.conllu, and the"
      " same for dev and test."
    )
  return out


def chosen(
  files: Files, split: str, wanted: Collection[str] | None, macro: str
) -> dict[str, list[Path]]:
  """The files of some languages, in the order of `wanted`; None: of all.

  Args:
    files: from `find`.
    split: one of SPLITS.
    wanted: language codes.
    macro: that names them, for the message.

  Raises:
    InputError: a language has no file of the split.
  """
  there = files[split]
  if wanted is None:
    return dict(there)
  missing = [language for language in wanted if language not in there]
  if missing or not wanted:
    raise InputError(
      f"{macro} = {list(wanted)}: DATA holds no {split} file of"
      f" {', '.join(missing) or 'any'}; it holds those of"
      f" {', '.join(there) or 'no language'}."
    )
  return {language: there[language] for language in wanted}
