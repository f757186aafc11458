"""The two roles of a rank: one coordinator (rank 0), many downloaders."""
