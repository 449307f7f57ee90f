"""From files on disk to samples, pictures and views."""
