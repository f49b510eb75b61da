"""Cross-lingual encoder pretraining in JAX: InfoXLM and its baselines."""

__version__ = "0.1.0"
