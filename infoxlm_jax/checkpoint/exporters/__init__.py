"""Writes our models as folders that other libraries load."""
