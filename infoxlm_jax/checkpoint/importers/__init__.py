"""Reads weights: Hugging Face's, fairseq's, and our checkpoints."""
