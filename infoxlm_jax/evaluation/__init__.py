"""Measures an encoder: sentence retrieval, similarity, collapse."""
