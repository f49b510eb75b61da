"""Training objectives: one file each, pure functions."""
