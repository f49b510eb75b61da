"""Cross-lingual encoder pretraining in JAX: InfoXLM and its baselines.

encoder = infoxlm_jax.load("runs/quickstart")
vectors = encoder.encode(["A sentence.", "Ein Satz."])
"""

import importlib
from typing import Any

from infoxlm_jax.version import __version__ as __version__


def __getattr__(name: str) -> Any:
  # Imported on first use, so that `import infoxlm_jax` does not import jax.
  if name == "load":
    return importlib.import_module("infoxlm_jax.evaluation.inference").load
  raise AttributeError(f"module 'infoxlm_jax' has no attribute {name!r}")
