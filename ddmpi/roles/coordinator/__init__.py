"""What rank 0 does: it performs what the core decides, and keeps the output folder's state."""
