"""`python -m src.benchmark loaders`: every loader beside its stock peers, each in a process of its own."""
