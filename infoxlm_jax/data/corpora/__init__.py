"""Readers of text and sentence pairs, one file for each format."""
