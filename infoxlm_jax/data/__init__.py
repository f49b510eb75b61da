"""From corpora to batches: tokenize, prepare, sample, pack, load."""
