"""Writes models as folders that other libraries load."""
