"""Optimizers by configuration, and which parameters decay."""
