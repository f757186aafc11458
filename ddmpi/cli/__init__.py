"""The command line: its arguments, and what it answers without MPI (--check, --plan, --status, --audit, --verify)."""
