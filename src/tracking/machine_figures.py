"""Which figures of a row the machine measured: the rule by which two records of the same training are compared."""

from collections.abc import Mapping

# Seconds, rates and FLOP/s; bytes; what the GPU's driver tells. All else follows from the configuration, bit for bit.
PREFIXES = ("time/", "memory/", "gpu/")


def repeatable(row: Mapping[str, float]) -> dict[str, float]:
    """Return a row of metrics.jsonl without what the machine measured."""
    return {key: value for key, value in row.items() if not key.startswith(PREFIXES)}
