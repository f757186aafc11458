"""Rank 0: who holds which work, what is done, and who steals from whom."""
