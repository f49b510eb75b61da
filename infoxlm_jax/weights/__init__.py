"""Weights in other formats than our own."""
