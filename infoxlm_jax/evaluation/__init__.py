"""Measures what an encoder can do: retrieval, similarity, collapse."""
