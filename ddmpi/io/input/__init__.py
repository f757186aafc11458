"""The user's table: which columns and which rows are taken from its files."""
