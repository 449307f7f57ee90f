"""Ways to score: each turns the embeddings of views and texts into scores, and knows nothing of pixels or devices."""
