"""Single rows of the results by their uuid."""
