"""Parquet files whose images do not pass through Arrow."""
