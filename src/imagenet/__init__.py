"""Data sets made ready for training: found, checked, and written as folders of image files."""
