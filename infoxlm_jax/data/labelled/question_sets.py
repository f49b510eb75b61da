"""The published sets of questions: which files they are, and their languages.

    SQuAD 1.1      {train,dev}-v1.1.json
    MLQA           {dev,test}-context-XX-question-YY.json
    XQuAD          xquad.XX.json
    TyDiQA-GoldP   tydiqa-goldp-v1.1-{train,dev}.json with all languages;
                   tydiqa-goldp-dev-LANGUAGE.json, as its archive has them;
                   tydiqa.goldp.XX.{train,dev}.json, as XTREME names them

A file may lie in any folder below the one that is given.
"""

from pathlib import Path

from infoxlm_jax.data.labelled import squad
from infoxlm_jax.data.labelled.squad import Questions
from infoxlm_jax.errors import InputError, check_choice

MLQA = ("en", "es", "de", "ar", "hi", "vi", "zh")
XQUAD = ("en", "es", "de", "el", "ru", "tr", "ar", "vi", "th", "zh", "hi")
# Ids begin with these names.
TYDIQA = {
  "en": "english",
  "ar": "arabic",
  "bn": "bengali",
  "fi": "finnish",
  "id": "indonesian",
  "ko": "korean",
  "ru": "russian",
  "sw": "swahili",
  "te": "telugu",
}


def read_squad(folder: str, split: str, leave_out: bool) -> Questions:
  """SQuAD 1.1.

  Args:
    folder: that holds the files.
    split: "train" or "dev".
    leave_out: whether to leave out unanswerable questions.

  Raises:
    InputError: the file is missing or broken; see squad.read. So do all
      functions here.
  """
  path = _find(folder, f"{split}-v1.1.json")
  return squad.read(path, leave_out_unanswerable=leave_out)


def read_mlqa(
  folder: str, split: str, context: str, question: str, leave_out: bool
) -> Questions:
  """MLQA: contexts (and answers) in one language, questions in another.

  Args:
    folder, leave_out: see read_squad.
    split: "dev" or "test".
    context, question: languages.
  """
  name = f"{split}-context-{context}-question-{question}.json"
  return squad.read(_find(folder, name), leave_out_unanswerable=leave_out)


def read_xquad(folder: str, language: str, leave_out: bool) -> Questions:
  """XQuAD; arguments as for read_squad."""
  path = _find(folder, f"xquad.{language}.json")
  return squad.read(path, leave_out_unanswerable=leave_out)


def read_tydiqa(
  folder: str, split: str, language: str, leave_out: bool
) -> Questions:
  """The questions of TyDiQA-GoldP in one language; as for read_squad."""
  check_choice("the language of TyDiQA-GoldP", language, TYDIQA)
  name = TYDIQA[language]
  whole = f"tydiqa-goldp-v1.1-{split}.json"
  xtreme = [f"tydiqa.goldp.{language}.{split}.json"]
  xtreme.append(f"tydiqa.{language}.{split}.json")
  path = _find(folder, f"tydiqa-goldp-{split}-{name}.json", whole, *xtreme)
  read = squad.read(
    path,
    leave_out_unanswerable=leave_out,
    # XTREME keeps only the last number of a training question's id.
    unique_ids=path.name not in xtreme,
  )
  if path.name != whole:
    return read
  of_language = [
    number
    for number, one in enumerate(read.questions)
    if one.id.startswith(f"{name}-")
  ]
  if not of_language:
    raise InputError(
      f"{path} has no question whose id begins with {name}-: give the file of"
      " all languages."
    )
  return read.select(of_language)


def _find(folder: str, *names: str) -> Path:
  """The file of the first of these names that is anywhere in the folder."""
  if not Path(folder).is_dir():
    raise InputError(f"DATA: {folder} is not a folder.")
  for name in names:
    paths = sorted(Path(folder).rglob(name))
    if len(paths) > 1:
      raise InputError(
        f"{paths[0]} and {paths[1]} have the same name: which is meant? Give a"
        " folder with one of them."
      )
    if paths:
      return paths[0]
  raise InputError(
    f"{folder} holds no {' or '.join(names)}, also not in its folders: add the"
    " file under its published name, or take its language out of LANGUAGES."
  )
