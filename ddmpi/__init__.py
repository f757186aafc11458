"""ddmpi: turn a table of URLs into a Parquet dataset of the files behind them, as one MPI program."""

__version__ = "0.1.0"
