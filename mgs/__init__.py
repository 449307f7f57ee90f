"""MGS: quality, authenticity and text-image correspondence of AI-generated images, scored with a fine-tuned CLIP."""

__version__ = "0.1.0"
