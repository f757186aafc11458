"""``python -m ddmpi.export``: results in other formats."""
