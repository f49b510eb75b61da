"""Checkpoints of a run, and import and export of other formats."""
