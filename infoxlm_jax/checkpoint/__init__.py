"""Checkpoints of a run, and weights to and from other programs' formats."""
