"""The training loop and the checkpoints that it leaves."""
