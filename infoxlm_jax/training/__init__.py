"""The update, the state it changes, and the jobs that repeat it."""
