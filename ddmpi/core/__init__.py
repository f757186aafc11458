"""Every decision, pure: no MPI, libcurl, file, clock, thread or environment; time comes in as ``now``."""
