"""Reads weights in formats other than our own."""
