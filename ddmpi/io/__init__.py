"""The shell: everything that touches MPI, the network or the file system."""
