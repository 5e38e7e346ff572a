"""`python -m src.benchmark prepare`: preparation and verification beside tar and Pillow."""
