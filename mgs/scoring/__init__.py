"""Scores for any image, and the reasons for them."""
