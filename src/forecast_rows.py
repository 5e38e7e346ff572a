"""A forecast in words for people, and as plain numbers for machines."""

from typing import Any

from src.config import Config
from src.forecast import Forecast, Part, bound_by, spread
from src.tracking.progress import duration
from src.training.arithmetic import Arithmetic
from src.trial import Trial

_HOUR = 3600


def time_rows(config: Config, arithmetic: Arithmetic, trial: Trial, expected: Forecast) -> dict[str, str]:
    """Say what the run takes, by part, what it costs, what limits it, and what was not seen."""
    total, pace = expected.total, trial.paces[-1]
    needed = expected_rate(arithmetic, expected) / max(1 - pace.waiting, 1e-9)
    rows = {
        "loader must deliver": f"about {needed:,.0f} images/s over all ranks, not to hold training up; "
        f"it makes {trial.loader_rate:,.0f} while nobody trains",
        "a step": "; ".join(
            f"{_seconds(spread(each.windows))} at {each.image_size} px, {each.waiting:.0%} of it waiting for data "
            f"(measured: {len(each.windows)} x {each.steps} steps)"
            for each in trial.paces
        ),
        "the run takes": f"{_hours(total)}, or {duration(total.expected)} from the command to its end",
        "  training it": f"{_hours(expected.training)}: {arithmetic.total_steps:,} steps",
        "  evaluating it": f"{_hours(expected.evaluation)} (measured: {len(trial.evaluation)} x {trial.evaluated_images:,} images)",
        "  starting": f"{_seconds(expected.start)}, the first step's included",
        "  saving": f"{_seconds(expected.saving)} of copying; they are written beside training",
        "an epoch takes": _hours(expected.epoch),
        "limited by": limit(trial),
        "not covered": uncovered(trial),
    }
    if config.price_per_hour is not None:
        price, currency = config.price_per_hour / _HOUR, config.price_currency
        rows["the run costs"] = f"{_money(total * price)} {currency}, at {config.price_per_hour:g} {currency} an hour"
        rows["  an epoch"] = f"{_money(expected.epoch * price)} {currency}"
    return rows


def rough_rows(config: Config, why_not: str, *, seconds: float, rate: float, ranks: int, measured: str) -> dict[str, str]:
    """Say what is known without a trial: training at the rate of noise, with nothing on how far that is off.

    Args:
        config: the whole configuration.
        why_not: there is no trial.
        seconds: of all training at that rate.
        rate: images a second of one rank.
        ranks: how many there are.
        measured: how the rate was.
    """
    rows = {
        "one rank trains": f"{_rate(rate)} images/s at {config.data.image_size} px without loading (measured: {measured})",
        "loader must deliver": f"{_rate(rate * ranks)} images/s over all ranks, not to hold training up",
        "training takes": f"about {seconds / _HOUR:,.2f} h at that rate, loading and evaluation apart",
        "not measured": f"the run's own steps: {why_not}",
    }
    if config.price_per_hour is not None:
        cost = seconds / _HOUR * config.price_per_hour
        rows["training costs"] = f"about {cost:,.2f} {config.price_currency} at that rate"
    return rows


def limit(trial: Trial) -> str:
    """Say whether data or compute limits training, with the numbers behind it."""
    pace = trial.paces[-1]
    return f"{bound_by(trial)}: training waits for data {pace.waiting:.0%} of its time"


def uncovered(trial: Trial) -> str:
    """Say what the measurement did not see."""
    said = "what other programs do to this machine later"
    if len(trial.paces) > 1:
        said += f"; image sizes between {trial.paces[0].image_size} and {trial.paces[-1].image_size} px (placed by their FLOPs)"
    if trial.disk_bytes == 0:
        return f"{said}; a cold disk: nothing was read from one"
    if trial.disk_bytes is not None:
        return (
            f"{said}; {trial.disk_bytes / 2**20:,.1f} MiB were read from the disk meanwhile, which later epochs may find in memory"
        )
    return said


def as_json(config: Config, arithmetic: Arithmetic, trial: Trial, expected: Forecast) -> dict[str, Any]:
    """Return the figures: seconds and money, each with its least and most."""
    figures: dict[str, Any] = {
        "step_seconds": {str(pace.image_size): _part(spread(pace.windows)) for pace in trial.paces},
        "images_per_second": round(expected_rate(arithmetic, expected), 2),
        "start_seconds": _part(expected.start),
        "training_seconds": _part(expected.training),
        "evaluation_seconds": _part(expected.evaluation),
        "saving_seconds": _part(expected.saving),
        "epoch_seconds": _part(expected.epoch),
        "total_seconds": _part(expected.total),
        "total_hours": _part(expected.total * (1 / _HOUR)),
        "limited_by": bound_by(trial),
        "waiting_for_data": round(trial.paces[-1].waiting, 4),
        "loader_images_per_second": round(trial.loader_rate, 2),
        "disk_bytes": trial.disk_bytes,
        "cost": None,
    }
    if config.price_per_hour is not None:
        price = config.price_per_hour / _HOUR
        figures["cost"] = {
            "currency": config.price_currency,
            "per_hour": config.price_per_hour,
            "epoch": _part(expected.epoch * price),
            "total": _part(expected.total * price),
        }
    return figures


def expected_rate(arithmetic: Arithmetic, expected: Forecast) -> float:
    """Return images a second in training, over all ranks and the whole run."""
    return arithmetic.total_steps * arithmetic.batch_size / expected.training.expected


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _part(part: Part) -> dict[str, float]:
    return {name: float(f"{value:.6g}") for name, value in part._asdict().items()}


def _seconds(part: Part) -> str:
    return f"{part.expected:.3g} s ({part.least:.3g} to {part.most:.3g})"


def _hours(part: Part) -> str:
    return f"{part.expected / _HOUR:.3g} h ({part.least / _HOUR:.3g} to {part.most / _HOUR:.3g})"


def _money(part: Part) -> str:
    return f"{part.expected:,.2f} ({part.least:,.2f} to {part.most:,.2f})"
