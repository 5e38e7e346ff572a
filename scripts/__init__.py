"""Commands beside the trainer: for Slurm, and for AWS. None of them is imported by the trainer."""
