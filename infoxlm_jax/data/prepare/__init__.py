"""Tokenises corpora, once, into shuffled records with checksums."""
