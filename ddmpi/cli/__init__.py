"""The command line: its arguments, and what it does without MPI (--check, --plan, --status, --audit, --verify, --forget)."""
