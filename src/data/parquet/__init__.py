"""Parquet that is read image by image: where in a file each one lies. The footer and the labels are read by pyarrow."""
