"""The training state, the update, and the job that repeats it."""
