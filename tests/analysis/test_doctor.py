"""infoxlm-doctor: what is right, and everything that it must call wrong."""

import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import small_corpus

from infoxlm_jax.analysis import device_probe, doctor
from infoxlm_jax.cli.doctor import main

CPU = [["cpu", "cpu", None]]
GPU = [["gpu", "NVIDIA H100", 80 * 2**30]]


def test_a_line_each_and_the_exit_code(monkeypatch, tmp_path, capsys):
  probed = []

  def devices(*arguments):
    probed.append(arguments)
    return CPU

  monkeypatch.setattr(device_probe, "devices", devices)
  monkeypatch.setattr(doctor.glob, "glob", lambda pattern: [])
  monkeypatch.setattr(doctor, "packages", lambda: doctor.Finding("p", "all"))
  flags = ["--model_dir", str(tmp_path / "new" / "runs")]
  assert main(flags) == 0
  lines = capsys.readouterr().out.splitlines()
  assert probed == [(), ("tensorflow",)]
  assert len(lines) == 8 and all(line.startswith("ok     ") for line in lines)
  assert "8,002 ids, <s> <pad> </s> <unk> <mask> = 0 1 2 3 8001" in lines[6]
  assert list(tmp_path.iterdir()) == []
  assert main(["--model_dir", "gs://bucket/runs"]) == 1
  *_, last = capsys.readouterr().out.splitlines()
  assert last.startswith("WRONG  MODEL_DIR: gs://bucket/runs is an address")


@pytest.mark.slow
def test_the_real_thing(plain_env, root):
  """Both processes that look at devices, TensorFlow among them."""
  done = subprocess.run(
    [sys.executable, "-m", "infoxlm_jax.cli.doctor"],
    cwd=root,
    env=plain_env | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert "devices: 1 x cpu; JAX_PLATFORMS=cpu" in done.stdout
  assert "TensorFlow: leaves jax its 1 device(s)" in done.stdout


def test_packages(monkeypatch):
  installed = {"jax": "0.9.1", "numpy": "2.4"}

  def version(name):
    try:
      return installed[name]
    except KeyError:
      raise metadata.PackageNotFoundError(name) from None

  needed = ["jax>=0.10", "numpy>=2", "optax>=0.2.8", 'torch==2; extra == "x"']
  monkeypatch.setattr(doctor.metadata, "requires", lambda name: needed)
  monkeypatch.setattr(doctor.metadata, "version", version)
  finding = doctor.packages()
  assert finding.wrong
  assert finding.text.startswith(
    "jax 0.9.1 is not jax>=0.10; optax is missing: pip install"
  )
  installed |= {"jax": "0.10.2", "optax": "0.2.8"}
  finding = doctor.packages()
  assert not finding.wrong
  assert "jax 0.10.2" in finding.text and "torch" not in finding.text


@pytest.mark.parametrize(
  ("devices", "files", "environment", "wrong", "says"),
  [
    (CPU, (), {}, False, "1 x cpu"),
    (GPU * 2, ("/dev/nvidia0",), {}, False, "2 x NVIDIA H100, 80.0 GiB"),
    (CPU, ("/dev/nvidia0",), {}, True, r"pip install -e '\.\[cuda\]'"),
    (CPU, ("/dev/accel0",), {}, True, r"pip install -e '\.\[tpu\]'"),
    (CPU, ("/dev/nvidia0",), {"JAX_PLATFORMS": "cpu"}, False, "PLATFORMS=cpu$"),
    (
      CPU,
      ("/dev/nvidia0",),
      {"CUDA_VISIBLE_DEVICES": ""},
      True,
      "which CUDA_VISIBLE_DEVICES hides: unset it",
    ),
    ("E: x", (), {"JAX_PLATFORMS": "tpu"}, True, "start: E: x; .*unset JAX_PL"),
  ],
)
def test_devices(monkeypatch, devices, files, environment, wrong, says):
  def matching(pattern):
    return [file for file in files if file[:8] == pattern[:8]]

  monkeypatch.setattr(doctor.glob, "glob", matching)
  finding = doctor.devices(devices, environment)
  assert finding.wrong == wrong
  assert re.search(says, finding.text), finding.text


@pytest.mark.parametrize(
  ("alone", "after", "wrong", "says"),
  [
    (GPU, GPU, False, "leaves jax its 1 device"),
    (GPU, CPU, True, r"jax has 1 device\(s\), and 1 \(cpu\) after"),
    (GPU * 2, GPU, True, "took or hid them"),
    (
      CPU,
      "ImportError: no tensorflow",
      True,
      "ImportError: no tensorflow; seq",
    ),
    ("AssertionError", "AssertionError", False, "not looked at"),
  ],
)
def test_tensorflow(alone, after, wrong, says):
  finding = doctor.beside_tensorflow(alone, after)
  assert finding.wrong == wrong
  assert re.search(says, finding.text), finding.text


def test_a_process_that_fails_or_hangs(monkeypatch):
  monkeypatch.setattr(device_probe, "_DEVICES", "raise ValueError('no device')")
  assert device_probe.devices() == "ValueError: no device"
  monkeypatch.setattr(device_probe, "_DEVICES", "import time; time.sleep(60)")
  monkeypatch.setattr(device_probe, "_SECONDS", 0.2)
  assert "no answer in 0.2 s" in device_probe.devices()


class Pretended:
  """A tokenizer with XLM-R's number of ids."""

  vocab_size, bos_id, pad_id, eos_id, unk_id = 250_002, 0, 1, 2, 3

  def __init__(self, mask_id, ids):
    self.mask_id, self.ids = mask_id, ids

  def encode(self, text):
    assert text == "Hello world!"
    return np.array(self.ids, np.int32)


@pytest.mark.parametrize(
  ("mask_id", "ids", "wrong"),
  [
    (250_001, [35378, 8999, 38], False),
    (250_001, [35377, 8998, 37], True),
    (4, [35378, 8999, 38], True),
  ],
)
def test_published_ids(monkeypatch, mask_id, ids, wrong):
  monkeypatch.setattr(
    doctor, "load_tokenizer", lambda path: Pretended(mask_id, ids)
  )
  finding = doctor.tokenizer_ids("x")
  assert finding.wrong == wrong
  said = "it is another tokenizer" if wrong else "as published for XLM-R"
  assert said in finding.text


def test_tokenizers_that_are_none(tmp_path):
  assert not doctor.tokenizer_ids(str(small_corpus.TOKENIZER)).wrong
  (tmp_path / "broken.model").write_bytes(b"no")
  for name in ("absent", "broken.model"):
    assert doctor.tokenizer_ids(str(tmp_path / name)).wrong


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
  def refuse(**options):
    raise PermissionError(13, "Permission denied")

  assert not doctor.model_folder(str(tmp_path / "a" / "b")).wrong
  monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
  finding = doctor.model_folder(str(tmp_path / "a"))
  assert finding.wrong
  assert finding.text.endswith(f"cannot write in {tmp_path}: Permission denied")
