"""Tars that are read in place: where each image lies, and what class it is of."""
