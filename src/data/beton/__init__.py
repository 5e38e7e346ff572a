"""FFCV's file, the .beton: its layout, its writer, and the file of class names and checksums that stands beside it."""
