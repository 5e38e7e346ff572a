"""Where images are stored. A source hands out encoded images by index, and nothing else."""
