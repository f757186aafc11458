"""The loops: what each rank does from its start to its exit code."""
