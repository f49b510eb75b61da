"""The process: hosts, signals, memory, files, metrics, progress."""
