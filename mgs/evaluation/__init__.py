"""Metrics, folds, tables and plots; knows arrays and tables, never a model."""
