"""The process around the work: hosts, signals, memory, files, logs."""
