"""Turns corpora into shuffled, checksummed records, once."""
