"""Fine-tuning on labelled tasks, and their evaluation."""
