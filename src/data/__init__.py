"""Plans, sources and engines: which images come next, where they are stored, and how they become pixels."""
