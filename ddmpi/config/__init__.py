"""The YAML language: which config is acceptable, and what follows from it alone."""
