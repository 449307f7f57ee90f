"""From tables and folders on disk to checked samples in folds."""
