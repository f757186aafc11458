"""Withdrawn images: which they are, and how they leave the results for good."""
