"""The user's table: which files, which columns, which rows."""
