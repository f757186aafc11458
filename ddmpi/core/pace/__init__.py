"""One server: when its next request may start."""
