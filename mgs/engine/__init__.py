"""A method on a device: batches, copies, precision, and what is kept. The only room where a device is touched."""
