"""What a volume, its snapshot and an instance cost, as a formula from prices that the user gives.

No price stands here: they differ between regions and days. What stands here is how AWS reckons: volumes and snapshots by the month of
730 hours, to the second; of gp3 the first 3,000 IOPS and 125 MiB/s are in the price of its size (EBS pricing). Traffic out of the region
and public IPv4 addresses are not in it.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any, NamedTuple

from scripts.aws.calls import say
from scripts.aws.errors import Problem, RefusedError

HOURS_OF_MONTH = 730
GP3_IOPS = 3000
GP3_THROUGHPUT = 125


class Line(NamedTuple):
    """One part of the sum: what, its formula in words, the same in numbers, and the result in the currency of the prices."""

    what: str
    formula: str
    numbers: str
    cost: float


def add_parsers(groups: Any) -> None:
    """Add the group `cost`."""
    summary = "what it costs, as a formula from the prices that you give"
    parser: ArgumentParser = groups.add_parser(
        "cost", help=summary, description=f"{summary.capitalize()}: aws.amazon.com/ebs/pricing, /ec2."
    )
    for option, unit in _OPTIONS.items():
        parser.add_argument(option, type=_amount, help=unit)
    parser.set_defaults(run=show)


def show(options: Namespace) -> int:
    """Print every part and the sum; as JSON, too."""
    lines = reckon(options)
    total = sum(line.cost for line in lines)
    for line in lines:
        say(f"{line.what:<20} {line.formula}")
        say(f"{'':<20} = {line.numbers} = {line.cost:.2f}")
    say(f"{'together':<20} {total:.2f}")
    sys.stdout.write(json.dumps({"total": round(total, 4), **{line.what: round(line.cost, 4) for line in lines}}) + "\n")
    return 0


def reckon(options: Namespace) -> list[Line]:
    """The parts whose amounts were given.

    Raises:
        RefusedError: an amount without its price or its time, each.
    """
    given = {key: value for key, value in vars(options).items() if value is not None}
    problems: list[Problem] = []

    def need(amount: str, *keys: str) -> list[float]:
        for key in keys:
            if key not in given:
                problems.append(
                    Problem(f"--{key.replace('_', '-')}", None, f"is missing, and --{amount.replace('_', '-')} was given.")
                )
        return [float(given.get(key, 0)) for key in keys]

    lines = []
    if "size_gib" in given:
        price, days = need("size_gib", "price_gib_month", "days")
        lines.append(_by_month("volume", "GiB", given["size_gib"], price, days))
    for amount, free, price_key, unit in (
        ("iops", GP3_IOPS, "price_iops_month", "IOPS"),
        ("throughput", GP3_THROUGHPUT, "price_mibps_month", "MiB/s"),
    ):
        if given.get(amount, 0) > free:
            price, days = need(amount, price_key, "days")
            lines.append(_by_month(amount, f"{unit} beyond {free}", given[amount] - free, price, days))
    if "snapshot_gib" in given:
        price, days = need("snapshot_gib", "price_snapshot_gib_month", "snapshot_days")
        lines.append(_by_month("snapshot", "GiB of written blocks", given["snapshot_gib"], price, days))
    if "hours" in given:
        lost, count = given.get("lost_percent", 0.0), given.get("instances", 1.0)
        if "price_hour" not in given and "price_spot_hour" not in given:
            need("hours", "price_hour")
        if "price_hour" in given:
            cost, numbers = (
                given["hours"] * count * given["price_hour"],
                f"{given['hours']:g} x {count:g} x {given['price_hour']:g}",
            )
            lines.append(Line("on demand", "hours x instances x price of an hour", numbers, cost))
        if "price_spot_hour" in given:
            hours, price = given["hours"], given["price_spot_hour"]
            numbers = f"{hours:g} x (1 + {lost:g} / 100) x {count:g} x {price:g}"
            formula = "hours x (1 + percent lost to interruptions / 100) x instances x spot price of an hour"
            lines.append(Line("spot", formula, numbers, hours * (1 + lost / 100) * count * price))
    if not lines:
        problems.append(Problem("amounts", None, "none was given: --size-gib, --snapshot-gib or --hours. Type cost --help."))
    if problems:
        raise RefusedError("cost", list(dict.fromkeys(problems)))
    return lines


def _by_month(what: str, unit: str, amount: float, price: float, days: float) -> Line:
    formula = f"{unit} x price of a month x days x 24 / {HOURS_OF_MONTH}"
    numbers = f"{amount:g} x {price:g} x {days:g} x 24 / {HOURS_OF_MONTH}"
    return Line(what, formula, numbers, amount * price * days * 24 / HOURS_OF_MONTH)


def _amount(value: str) -> float:
    amount = float(value)
    if not 0 <= amount < float("inf"):
        raise ValueError(value)
    return amount


_OPTIONS = {
    "--size-gib": "of the volumes together, the root disk too",
    "--days": "for which the volumes exist",
    "--price-gib-month": "of a volume's GiB, a month",
    "--iops": "of a gp3 volume, all",
    "--price-iops-month": "of an IOPS beyond 3000, a month",
    "--throughput": "MiB/s of a gp3 volume, all",
    "--price-mibps-month": "of a MiB/s beyond 125, a month",
    "--snapshot-gib": "that were written on the volume: ImageNet's images about 150",
    "--snapshot-days": "for which the snapshot exists",
    "--price-snapshot-gib-month": "of a snapshot's GiB, a month",
    "--hours": "of training",
    "--instances": "default: 1",
    "--price-hour": "of an instance on demand",
    "--price-spot-hour": "of an instance on spot",
    "--lost-percent": "of the hours, trained again after interruptions; default: 0",
}
