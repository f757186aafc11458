"""The partitioned table: written once, read batch by batch."""
