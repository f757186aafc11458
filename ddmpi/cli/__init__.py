"""The command line: its arguments, and what it answers without MPI (--plan, --status, --verify, requeueing)."""
