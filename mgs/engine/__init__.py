"""A method on a device: batches, copies, precision, and what is kept. Copies to and from a device are made here."""
