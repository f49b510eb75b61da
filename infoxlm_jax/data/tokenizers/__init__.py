"""Tokenizers, from text to token ids: one file for each kind."""
