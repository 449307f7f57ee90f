"""Keep the best of the images that were scored; DuckDB reads, chooses and orders."""
