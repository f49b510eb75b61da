"""Looking at the data of a run: what a step sees, and what a corpus holds."""
