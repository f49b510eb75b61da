"""Evaluates an encoder: retrieval, similarity, collapse."""
