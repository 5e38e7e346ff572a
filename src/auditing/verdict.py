"""What an audit found: one line a check, and all of it in one word."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.table import Table

_SHOWN = 3


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: what.
        outcome: "agrees", "differs", or "not checked".
        detail: how much was looked at, or the first places that differ.
    """

    name: str
    outcome: Literal["agrees", "differs", "not checked"]
    detail: str


def check(name: str, wrong: Sequence[str], right: str) -> Check:
    """Return what a list of differences comes to."""
    if not wrong:
        return Check(name, "agrees", right)
    more = f"; and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
    return Check(name, "differs", "; ".join(wrong[:_SHOWN]) + more)


class Verdict(NamedTuple):
    """The whole audit.

    Attributes:
        run: its folder.
        checks: in order.
        steps: of the run so far.
        replayed: how many of them were replayed.
        replayable: how many of them come after some kept checkpoint.
        planned: how many steps' plans were computed again.
        seed: of the choice of windows.
        exact: whether all replays were compared bit for bit; None where nothing was replayed.
    """

    run: Path
    checks: Sequence[Check]
    steps: int
    replayed: int
    replayable: int
    planned: int
    seed: int
    exact: bool | None

    @property
    def status(self) -> str:
        """`differs`, `not auditable` where nothing could be replayed that was to be, or `agrees`."""
        outcomes = {each.outcome for each in self.checks}
        if "differs" in outcomes:
            return "differs"
        return "not auditable" if "not checked" in outcomes else "agrees"

    @property
    def exit_code(self) -> int:
        """0 agrees, 1 differs, 2 not auditable."""
        return {"agrees": 0, "differs": 1, "not auditable": 2}[self.status]

    def table(self) -> Table:
        """Return it for people."""
        table = Table(title=f"audit of {self.run}: {self.status}", title_justify="left")
        for heading in ("check", "outcome", "detail"):
            table.add_column(heading, overflow="fold")
        for each in self.checks:
            table.add_row(each.name, each.outcome, each.detail)
        return table

    def as_json(self) -> dict[str, Any]:
        """Return stdout's last line."""
        return {
            "status": self.status,
            "run": str(self.run),
            "differs": {each.name: each.detail for each in self.checks if each.outcome == "differs"},
            "steps": self.steps,
            "steps_replayed": self.replayed,
            "steps_replayable": self.replayable,
            "steps_planned": self.planned,
            "exact": self.exact,
            "seed": self.seed,
        }
