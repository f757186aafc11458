"""Rows to servers, servers to groups and batches, batches to files."""
