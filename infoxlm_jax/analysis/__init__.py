"""Reports the costs and the batches of a run without starting it."""
