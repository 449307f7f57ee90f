"""The training loop and what it leaves: progress, checkpoints, logs."""
