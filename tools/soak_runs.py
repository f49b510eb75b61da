"""The small run that soak.py disturbs: its data, its settings, its result."""

import contextlib
import gzip
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from soak_process import ended, run, said, started

STEPS, SAVE_EVERY, EVAL_EVERY = 60, 5, 30
# In a work folder; TEXTS and PART only in the reference's.
RUN, DATA, TEXTS, PART = "run", "data", "texts", "part"
LANGUAGES = ("en", "de", "fr")
ROOT = Path(__file__).resolve().parents[1]
_VERSES = ROOT / "tasks" / "data" / "verses.dev.tsv.gz"
_TOKENIZER = ROOT / "tasks" / "data" / "verses.spm.model"
_ROWS = 160
_SETTINGS: dict[str, Any] = {
  # One masked LM: with two, a start takes a third longer to trace and load.
  "OBJECTIVES": "{'mlm': @mlm/masked_lm.MaskedLM(),"
  " 'xlco': @contrast.Contrast()}",
  "ROW_LENGTH": 32,
  "SAVE_EVERY": SAVE_EVERY,
  "EVAL_EVERY": EVAL_EVERY,
  "WARMUP_STEPS": 5,
  "options.RunOptions.log_every": 1,
  "options.EvaluationOptions.batches": 1,
  "config.EncoderConfig.num_layers": 2,
  "config.EncoderConfig.hidden_size": 16,
  "config.EncoderConfig.num_heads": 2,
  "config.EncoderConfig.ffn_size": 32,
  "config.EncoderConfig.max_positions": 64,
  "config.EncoderConfig.unroll": 1,
  "contrast.Contrast.queue_size": 64,
  "mlm/streams.TextStream.rows": 8,
  "xlco/streams.ContrastStream.batch": 8,
  "xlco/streams.ContrastStream.rows": 16,
}


def flags(steps: int = STEPS) -> list[str]:
  """Arguments of infoxlm_jax.main for the run in a work folder.

  The run is in run/, its data in data/: of a copy of the folder nothing tells
  that it is one.
  """
  settings = _SETTINGS | {"STEPS": steps, "MODEL_DIR": RUN, "DATA": DATA}
  return [f"--gin_file={ROOT / 'gin' / 'quickstart.gin'}"] + [
    f"--gin.{name}={value}" for name, value in settings.items()
  ]


def write_texts(folder: Path) -> None:
  """Writes a few verses as <language>.txt and en-<language>.tsv."""
  with gzip.open(_VERSES, "rt", encoding="utf-8") as file:
    names, *rows = (line.rstrip("\n").split("\t") for line in file)
  columns = [names.index(language) for language in LANGUAGES]
  verses = [[row[column] for column in columns] for row in rows]
  verses = [row for row in verses if all(row)][:_ROWS]
  folder.mkdir()
  for number, language in enumerate(LANGUAGES):
    text = "".join(f"{row[number]}\n" for row in verses)
    (folder / f"{language}.txt").write_text(text, "utf-8")
    if number:
      pairs = "".join(f"{row[0]}\t{row[number]}\n" for row in verses)
      (folder / f"en-{language}.tsv").write_text(pairs, "utf-8")


def make_reference(
  folder: Path, with_part: bool = True
) -> tuple[dict[str, Any], float]:
  """Makes data, a whole run, and part of the same run; see `work_folder`.

  Args:
    folder: a new work folder.
    with_part: whether to make the part.

  Returns:
    What the whole run is compared by, see `result`; and the seconds that
    preparing took.

  Raises:
    RuntimeError: a process failed.
  """
  folder.mkdir(parents=True)
  write_texts(folder / TEXTS)
  seconds = []
  for work, arguments in ((prepared, [TEXTS, DATA]), (train, [flags()])):
    end = run(work, arguments, folder)
    if end.code:
      raise RuntimeError(f"the undisturbed run failed:\n{end.output}")
    seconds.append(end.seconds)
  whole = result(folder / RUN)
  shutil.move(folder / RUN, folder / "whole")
  if not with_part:
    return whole, seconds[0]
  start = time.monotonic()
  with started(train, [flags()], folder) as process:
    while last_step(folder / RUN) < STEPS - SAVE_EVERY - 3:
      if not process.is_alive():
        raise RuntimeError(f"the stopped run failed:\n{said(folder)}")
      time.sleep(0.01)
    process.terminate()
    ended(process, folder, start)
  shutil.move(folder / RUN, folder / PART)
  return whole, seconds[0]


def prepare(texts: Path, output: Path) -> None:
  """Prepares the texts: several chunks and shards of a few dozen verses."""
  from infoxlm_jax.data.corpora import sources
  from infoxlm_jax.data.prepare import pipeline
  from infoxlm_jax.data.prepare.plan import Sizes

  pipeline.prepare(
    output,
    tokenizer=str(_TOKENIZER),
    row_length=_SETTINGS["ROW_LENGTH"],
    corpora=[
      sources.TextFiles(str(texts / "*.txt")),
      sources.Tsv(str(texts / "*.tsv")),
    ],
    max_side=30,
    held_out=12,
    sizes=Sizes(chunk=4000, shard=20000, hashes=500),
    workers=1,
    progress=False,
  )


def train(arguments: Sequence[str]) -> int:
  """The process of a run, as python -m infoxlm_jax.main."""
  from infoxlm_jax import main

  return main.main(arguments)


def prepared(texts: str, output: str) -> int:
  """The process of preparing, with the exit codes of the commands."""
  from infoxlm_jax import errors

  return errors.exit_code(lambda: prepare(Path(texts), Path(output)))


def exported(run_folder: str, output: str) -> int:
  """The process that writes a run's weights in Hugging Face's format."""
  from infoxlm_jax.cli import export

  return export.main(
    ["--checkpoint", run_folder, "--format", "hf", "--output", output]
  )


def result(folder: Path) -> dict[str, Any]:
  """What a run is compared by: all arrays' bits, and all metrics.

  The stored checksum of every array of the last checkpoint stands for its
  bits, once all files were compared with them.

  Raises:
    ValueError: the last checkpoint, metrics.jsonl or results.json is damaged
      or missing.
  """
  from infoxlm_jax.checkpoint import examine
  from infoxlm_jax.errors import InputError
  from infoxlm_jax.runtime.json_crc import read_checked
  from infoxlm_jax.runtime.metrics import read_metrics

  try:
    last = examine.folders(folder)[-1]
    if problems := examine.damage(last):
      raise ValueError(problems[0])
    rows = [
      {k: v for k, v in row.items() if not _is_time(k)}
      for row in read_metrics(folder)
    ]
    results = read_checked(folder / "results.json")
  except InputError as error:
    raise ValueError(str(error)) from error
  arrays = json.loads((last / "files" / "checksums.json").read_text())["arrays"]
  measured = {k: v for k, v in results.items() if not _is_time(k)}
  return {
    "step": int(last.name),
    "arrays": arrays,
    # A report that is made again measures its last step again.
    "rows": list({json.dumps(row): row for row in rows}.values()),
    "results": json.loads(re.sub(r"\bNaN\b", "null", json.dumps(measured))),
  }


def difference(wanted: Mapping[str, Any], folder: Path) -> str | None:
  """In what a finished run differs from the reference; None: in nothing."""
  try:
    own = result(folder)
  except (OSError, ValueError, KeyError) as error:
    return str(error)
  names = [name for name in wanted if own[name] != wanted[name]]
  return ", ".join(names) or None


def _is_time(name: str) -> bool:
  return name == "time" or "second" in name or "data_wait" in name


def last_step(folder: Path) -> int:
  """The last update that metrics.jsonl has; 0 if it has none."""
  try:
    lines = (folder / "metrics.jsonl").read_bytes().splitlines()
  except OSError:
    return 0
  for line in reversed(lines):
    with contextlib.suppress(ValueError):
      return int(json.loads(line)["step"])
  return 0


def work_folder(place: Path, reference: Path, part: bool = False) -> Path:
  """A new work folder.

  Args:
    place: the new folder.
    reference: the work folder of the reference run.
    part: begin with a copy of the run that was stopped half-way, and of the
      data; else with no run, and the reference's own data.
  """
  place.mkdir(parents=True)
  if part:
    shutil.copytree(reference / PART, place / RUN)
    shutil.copytree(reference / DATA, place / DATA)
  else:
    (place / DATA).symlink_to(reference / DATA)
  return place
