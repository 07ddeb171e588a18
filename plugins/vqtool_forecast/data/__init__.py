"""Series from CSV and Parquet files, cut into windows."""
