"""Reports what a run costs and which data it sees, without training."""
