"""What a volume, its snapshot and an instance cost, as a formula from prices that the user gives.

No price stands here: they differ between regions and days. What stands here is how AWS reckons: volumes and snapshots by the month
of 730 hours, to the second; of gp3 the first 3,000 IOPS and 125 MiB/s are in the price of its size (EBS pricing). Traffic out of
the region and public IPv4 addresses are not in it.
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
_INSTANCES = ("on demand", "spot")


class Line(NamedTuple):
    """One part of the sum: what, its formula in words, the same in numbers, and the result in the currency of the prices."""

    what: str
    formula: str
    numbers: str
    cost: float


def add_parsers(groups: Any) -> None:
    """Add the group `cost`."""
    summary = "what it costs, as a formula from the prices that you give"
    description = f"{summary.capitalize()}. Prices: aws.amazon.com/ebs/pricing and aws.amazon.com/ec2/pricing."
    parser: ArgumentParser = groups.add_parser("cost", help=summary, description=description)
    for option, unit in _OPTIONS.items():
        parser.add_argument(option, type=_amount, help=unit)
    parser.set_defaults(run=show)


def show(options: Namespace) -> int:
    """Print every part and the sum (with either kind of instance, where both prices are given); as JSON, too."""
    lines = reckon(options)
    for line in lines:
        say(f"{line.what:<20} {line.formula}")
        say(f"{'':<20} = {line.numbers} = {line.cost:.2f}")
    rest = sum(line.cost for line in lines if line.what not in _INSTANCES)
    totals = {f"total {line.what}": rest + line.cost for line in lines if line.what in _INSTANCES} or {"total": rest}
    for what, total in totals.items():
        say(f"{what:<20} {total:.2f}")
    told = {line.what: line.cost for line in lines} | totals
    sys.stdout.write(json.dumps({what: round(cost, 4) for what, cost in told.items()}) + "\n")
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
        if "price_hour" not in given and "price_spot_hour" not in given:
            need("hours", "price_hour")
        lines += _of_instances(given)
    if not lines:
        problems.append(Problem("amounts", None, "none was given: --size-gib, --snapshot-gib or --hours. Type cost --help."))
    if problems:
        raise RefusedError("cost", list(dict.fromkeys(problems)))
    return lines


def _of_instances(given: dict[str, float]) -> list[Line]:
    """On demand, on spot, or both, for comparison."""
    hours, count, lost, lines = given["hours"], given.get("instances", 1.0), given.get("lost_percent", 0.0), []
    if "price_hour" in given:
        price = given["price_hour"]
        lines.append(
            Line(_INSTANCES[0], "hours x instances x price of an hour", f"{hours:g} x {count:g} x {price:g}", hours * count * price)
        )
    if "price_spot_hour" in given:
        price = given["price_spot_hour"]
        formula = "hours x (1 + percent lost to interruptions / 100) x instances x spot price of an hour"
        numbers = f"{hours:g} x (1 + {lost:g} / 100) x {count:g} x {price:g}"
        lines.append(Line(_INSTANCES[1], formula, numbers, hours * (1 + lost / 100) * count * price))
    return lines


def _by_month(what: str, unit: str, amount: float, price: float, days: float) -> Line:
    formula = f"{unit} x price of a month x days x 24 / {HOURS_OF_MONTH}"
    numbers = f"{amount:g} x {price:g} x {days:g} x 24 / {HOURS_OF_MONTH}"
    return Line(what, formula, numbers, amount * price * days * 24 / HOURS_OF_MONTH)


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"


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
