"""CLIPs: found, read, frozen, and run without what their embeddings do not need."""
