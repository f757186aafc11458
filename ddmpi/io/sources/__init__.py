"""The files of the input: which there are, how each is read, and its rows as record batches of its own columns."""
