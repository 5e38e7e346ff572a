"""What is written down about a run: the console, metrics.jsonl, the run's folder."""
