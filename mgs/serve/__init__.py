"""A server: a page for people, an endpoint for programs, rewards for training."""
