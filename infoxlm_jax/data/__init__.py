"""From corpora to batches: tokenise, prepare, draw, pack."""
