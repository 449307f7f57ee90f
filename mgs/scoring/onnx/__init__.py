"""A scorer as two ONNX graphs: written here, and scored with without torch."""
