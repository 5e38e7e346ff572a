"""What a verification found: a table for people, JSON for programs, one word for the exit code."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from src.files import write_atomically

Verdict = Literal["ok", "expected", "problem", "not checked"]
SHOWN = 5  # offenders of each kind that the table names


class Finding(NamedTuple):
    """One check and its outcome.

    Attributes:
        level: of verification that the check belongs to, 0 to 3.
        check: what was looked at, in a few words; the same for every data set.
        verdict: `expected` is odd, known, and as it should be; `problem` is anything unknown.
        found: one line for people.
        offenders: what the finding is about, by path or name, all of it.
    """

    level: int
    check: str
    verdict: Verdict
    found: str
    offenders: Sequence[str] = ()


class Report(NamedTuple):
    """All findings of one verification.

    Attributes:
        root: the data set's folder.
        level: that was asked for.
        expected: what the data set was held against, "imagenet" or "any".
        counts: images by split.
        seconds: that it took.
        findings: in the order of the levels.
    """

    root: str
    level: int
    expected: Literal["imagenet", "any"]
    counts: dict[str, int]
    seconds: float
    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """Return whether nothing unknown was found."""
        return not any(finding.verdict == "problem" for finding in self.findings)

    def table(self) -> str:
        """Return the findings for people: a line each, and the first offenders by path."""
        width = max(len(finding.check) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"  {finding.level}  {finding.check:<{width}}  {finding.verdict:<11}  {finding.found}")
            if finding.verdict != "ok":
                lines += [f"     {'':<{width}}               {printable(name)}" for name in finding.offenders[:SHOWN]]
                if len(finding.offenders) > SHOWN:
                    lines.append(f"     {'':<{width}}               and {len(finding.offenders) - SHOWN:,} more")
        what = "the whole ILSVRC2012" if self.expected == "imagenet" else "any data set"
        problems = sum(finding.verdict == "problem" for finding in self.findings)
        verdict = "nothing unknown was found" if self.ok else f"{problems} of {len(self.findings)} checks found a problem"
        head = f"{self.root}, level {self.level}, as {what}: {verdict} ({self.seconds:,.1f} s)"
        return "\n".join([head, *lines])

    def as_json(self) -> dict[str, Any]:
        """Return everything that JSON can hold, offenders in full."""
        return {
            "ok": self.ok,
            "root": printable(self.root),
            "level": self.level,
            "expected": self.expected,
            "counts": self.counts,
            "seconds": round(self.seconds, 2),
            "findings": [
                {
                    "level": finding.level,
                    "check": finding.check,
                    "verdict": finding.verdict,
                    "found": printable(finding.found),
                    "count": len(finding.offenders),
                    "offenders": [printable(name) for name in finding.offenders],
                }
                for finding in self.findings
            ],
        }

    def write(self, path: Path) -> None:
        """Write the JSON, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(self.as_json(), indent=1).encode() + b"\n")


def printable(text: str) -> str:
    r"""Return a text that a terminal and UTF-8 can hold: a name's control characters and stray bytes as \x0a, \udcff."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
