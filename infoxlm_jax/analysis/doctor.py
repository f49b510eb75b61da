"""What `infoxlm-doctor` looks at: one Finding for each thing."""

import dataclasses
import glob
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from infoxlm_jax.analysis import device_probe
from infoxlm_jax.data.tokenizers.base import load_tokenizer
from infoxlm_jax.errors import InputError
from infoxlm_jax.runtime import resources
from infoxlm_jax.version import __version__

_PACKAGE = "infoxlm-jax"
_SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# Files of accelerators, and the variable that hides them from jax.
_ACCELERATORS = {
  "NVIDIA GPU": ("/dev/nvidia[0-9]*", "CUDA_VISIBLE_DEVICES"),
  "TPU": ("/dev/accel[0-9]*", "TPU_VISIBLE_DEVICES"),
}
# Ids of XLM-R, by the length of the vocabulary: what Hugging Face and fairseq
# publish for it, and InfoXLM and multilingual-e5 share.
_TEXT = "Hello world!"
_XLMR_IDS = (35378, 8999, 38)
_PUBLISHED = {
  250_002: ("XLM-R", (0, 1, 2, 3, 250_001), _XLMR_IDS),
  119_547: ("mBERT", (101, 0, 102, 100, 103), None),
}


@dataclasses.dataclass(frozen=True)
class Finding:
  """One line of the report.

  Attributes:
    what: the thing that was looked at.
    text: what it is, and where something is wrong what to do.
    wrong: whether something is.
  """

  what: str
  text: str
  wrong: bool = False

  def __str__(self) -> str:
    state = "WRONG" if self.wrong else "ok"
    return f"{state:5}  {self.what}: {self.text}"


def examine(
  tokenizer: str | None = None, model_dir: str = "runs"
) -> Iterator[Finding]:
  """All findings, each as soon as it is known.

  Args:
    tokenizer: file or folder of one; None: the one that comes along.
    model_dir: where runs are to be written.
  """
  yield python()
  yield packages()
  yield shared_files()
  alone = device_probe.devices()
  yield devices(alone, os.environ)
  yield beside_tensorflow(alone, device_probe.devices("tensorflow"))
  yield memory()
  yield tokenizer_ids(tokenizer)
  yield model_folder(model_dir)


def python() -> Finding:
  """The release of Python, and the machine."""
  release = platform.python_version()
  fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
  machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
  text = f"{release} on {machine}"
  if not fits:
    text += "; install 3.11, 3.12 or 3.13 (tensorflow-text has no others)"
  return Finding("Python", text, not fits)


def packages() -> Finding:
  """Versions of what is required, compared with the lower bounds."""
  try:
    needed = metadata.requires(_PACKAGE) or []
  except metadata.PackageNotFoundError:
    return Finding(
      "packages", f"{_PACKAGE} is not installed: pip install -e .", True
    )
  problems, versions = [], {}
  for line in needed:
    requirement = Requirement(line)
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
      continue
    try:
      version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
      problems.append(f"{requirement.name} is missing")
      continue
    versions[requirement.name] = version
    if not requirement.specifier.contains(version, prereleases=True):
      problems.append(f"{requirement.name} {version} is not {requirement}")
  if problems:
    text = f"{'; '.join(problems)}: pip install -e . brings what is needed"
    return Finding("packages", text, True)
  shown = [f"{name} {_version(name)}" for name in (*_SHOWN, "tensorflow")]
  own = f"{_PACKAGE} {__version__}"
  return Finding("packages", ", ".join([own, *shown]))


def shared_files() -> Finding:
  """The folders gin/ and tasks/, and the quickstart's data."""
  try:
    place = resources.share_root()
    resources.find("tasks/data/verses.train.tsv.gz")
  except InputError as error:
    return Finding("gin files and tasks", str(error), True)
  return Finding("gin files and tasks", str(place))


def devices(alone: list[Any] | str, environment: Mapping[str, str]) -> Finding:
  """The devices that jax computes on, and whether one was left out.

  Args:
    alone: [platform, kind, bytes of memory] of each; or why there is none.
    environment: the variables that jax was started with.
  """
  asked = {
    name: environment[name]
    for name in ("JAX_PLATFORMS", "XLA_FLAGS", "LD_LIBRARY_PATH")
    if environment.get(name)
  }
  said = "".join(f"; {name}={value}" for name, value in asked.items())
  if isinstance(alone, str):
    advice = "unset JAX_PLATFORMS, or install what it asks for"
    if "JAX_PLATFORMS" not in asked:
      advice = "see docs/install.md for the extra of this machine"
    return Finding(
      "devices", f"jax does not start: {alone}{said}; {advice}", True
    )
  kinds: dict[str, int] = {}
  for _, kind, size in alone:
    known = f"{kind}, {size / 2**30:.1f} GiB" if size else str(kind)
    kinds[known] = kinds.get(known, 0) + 1
  text = ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) + said
  unused = {platform for platform, *_ in alone} == {"cpu"} and _unused(
    environment
  )
  return Finding("devices", text + (unused or ""), bool(unused))


def _unused(environment: Mapping[str, str]) -> str:
  """What is wrong where jax uses the CPU beside an accelerator; "": nothing."""
  if environment.get("JAX_PLATFORMS"):
    return ""  # as it was told
  for name, (files, hides) in _ACCELERATORS.items():
    if not glob.glob(files):
      continue
    if hides in environment:
      return f"; this machine has a {name}, which {hides} hides: unset it"
    extra = "cuda" if name == "NVIDIA GPU" else "tpu"
    return (
      f"; this machine has a {name} that jax does not use: pip install -e"
      f" '.[{extra}]' (or JAX_PLATFORMS={extra} tells why)"
    )
  return ""


def beside_tensorflow(
  alone: list[Any] | str, after: list[Any] | str
) -> Finding:
  """Whether jax has the same devices where TensorFlow was imported before.

  Args:
    alone: jax's devices, or why there are none.
    after: the same in a process that prepared to read a Task with TensorFlow.
  """
  if isinstance(alone, str):
    return Finding("TensorFlow", "not looked at, for jax does not start")
  if isinstance(after, str):
    text = f"{after}; seqio Tasks and TFDS cannot be read"
    return Finding("TensorFlow", text, True)
  if [d[:2] for d in alone] == [d[:2] for d in after]:
    return Finding("TensorFlow", f"leaves jax its {len(after)} device(s)")
  return Finding(
    "TensorFlow",
    f"jax has {len(alone)} device(s), and {len(after)} ({after[0][0]}) after"
    " TensorFlow was imported: TensorFlow took or hid them. Install the"
    " tensorflow-cpu of the same release in its place.",
    True,
  )


def memory() -> Finding:
  """Memory of the host; less than the quickstart needs is wrong."""
  free = total = None
  if Path("/proc/meminfo").is_file():
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {line.partition(":")[0]: line.split()[1] for line in lines}
    total, free = (1024 * int(sizes[k]) for k in ("MemTotal", "MemAvailable"))
  if total is None or free is None:
    return Finding("memory", "this system does not tell")
  text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
  few = free < 2e9
  return Finding(
    "memory", text + ("; the quickstart alone needs 1.7" if few else ""), few
  )


def tokenizer_ids(path: str | None) -> Finding:
  """A tokenizer, and where its model is known the ids that are published."""
  try:
    own = path or resources.find("tasks/data/verses.spm.model")
    tokenizer = load_tokenizer(own)
    ids = tokenizer.encode(_TEXT).tolist()
  except InputError as error:
    return Finding("tokenizer", str(error), True)
  specials = (
    *(tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id),
    *(tokenizer.unk_id, tokenizer.mask_id),
  )
  text = (
    f"{own}, {tokenizer.vocab_size:,} ids, <s> <pad> </s> <unk> <mask> ="
    f" {' '.join(map(str, specials))}, {_TEXT!r} = {' '.join(map(str, ids))}"
  )
  if tokenizer.vocab_size not in _PUBLISHED:
    return Finding("tokenizer", text)
  name, wanted, published = _PUBLISHED[tokenizer.vocab_size]
  if specials == wanted and tuple(ids) == (published or tuple(ids)):
    return Finding("tokenizer", f"{text}, as published for {name}")
  published_ids = " ".join(map(str, (*wanted, *(published or ()))))
  return Finding(
    "tokenizer",
    f"{text}; {name}, which has as many ids, has {published_ids}:"
    " it is another tokenizer, or a changed file",
    True,
  )


def model_folder(path: str) -> Finding:
  """Whether runs can be written there, and how much room there is."""
  if "://" in path:
    text = f"{path} is an address; mount the bucket as a folder"
    return Finding("MODEL_DIR", text, True)
  folder = Path(path).expanduser().absolute()
  place = next(p for p in (folder, *folder.parents) if p.exists())
  try:
    with tempfile.NamedTemporaryFile(
      dir=place, prefix=".infoxlm-doctor-"
    ) as file:
      file.write(b"0" * 4096)
      file.flush()
      os.fsync(file.fileno())
    free = shutil.disk_usage(place).free
  except OSError as error:
    text = f"{folder}: cannot write in {place}: {error.strerror}"
    return Finding("MODEL_DIR", text, True)
  few = free < 1e9
  text = f"{folder} can be written, {free / 1e9:.1f} GB free"
  return Finding("MODEL_DIR", text + ("; make room" if few else ""), few)


def _version(name: str) -> str:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return "(missing)"
