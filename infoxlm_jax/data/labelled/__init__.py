"""Labelled data: readers of their files, and examples in memory."""
