"""The command line: its arguments, and what needs no MPI (--check, --plan, --status, --audit, --verify, --forget)."""
