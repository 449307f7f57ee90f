"""Where images to score come from: files, tables, Parquet, tars; on this machine or in an object store."""
