"""Which class each validation image has: what the files that came with it tell."""
