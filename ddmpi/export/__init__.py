"""``python -m ddmpi.export``: finished results as input for training, beside the originals, which stay as they are."""
