"""Training, testing and comparing, each read from top to bottom."""
