"""Cross-lingual encoder pretraining in JAX: InfoXLM and its baselines.

encoder = infoxlm_jax.load("runs/quickstart")
vectors = encoder.encode(["A sentence.", "Ein Satz."])
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
  # Only when asked for: `import infoxlm_jax` does not wait for jax.
  if name == "load":
    return importlib.import_module("infoxlm_jax.inference").load
  raise AttributeError(f"module 'infoxlm_jax' has no attribute {name!r}")
