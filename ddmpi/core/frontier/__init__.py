"""One rank: which request starts now, and what becomes of it."""
