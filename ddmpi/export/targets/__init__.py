"""What an export can write: one file per target, whose name is that of ``--to``."""
