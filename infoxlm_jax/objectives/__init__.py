"""Training objectives, one file each, as pure functions."""
