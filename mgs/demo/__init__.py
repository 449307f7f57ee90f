"""The demo's dataset: drawings, and the faults that its imaginary generators make."""
