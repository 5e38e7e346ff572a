"""What happens to an image that cannot be decoded: the same in every engine.

By default an engine raises, with the sample's name. With this policy the plan offers another sample in its place,
deterministically, up to so many different bad images; then it raises all the same.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

from loguru import logger
from numpy.typing import NDArray

from src.batch import BatchPlan, DataError, Source, StaleIndex
from src.data.plan import CropLaw, replacement

Columns = tuple[NDArray[Any], ...]  # of a plan
_ATTEMPTS = 10  # replacements that are bad themselves, before the data must be mostly bad


class Substitute(NamedTuple):
    """What was shown in a bad image's place.

    Attributes:
        row: the place in the batch.
        plan: the one sample that took it.
        bad: sample index to what was wrong with it, for all that were tried.
    """

    row: int
    plan: BatchPlan
    bad: dict[int, str]


class BadImages:
    """Replaces what cannot be decoded, on one rank.

    Args:
        source: where replacements come from.
        law: of their boxes and flips.
        most: different bad images that are replaced; one more raises.
    """

    def __init__(self, source: Source, law: CropLaw, *, most: int) -> None:
        self._source, self._law, self._most = source, law, most
        self._met: set[int] = set()

    def substitute(self, plan: BatchPlan, row: int, error: DataError, make: Callable[[BatchPlan], None]) -> Substitute:
        """Offer one sample after the other until one can be made. Safe to call from many threads.

        Args:
            plan: the batch's.
            row: which image of it is bad.
            error: what is wrong with it.
            make: makes the pixels of a plan of one sample; raises DataError where that is bad too.
        """
        bad = {int(plan.ids[row]): str(error)}
        for attempt in range(_ATTEMPTS):
            other = replacement(plan, row, attempt, self._source.sizes, self._law)
            try:
                make(other)
            except StaleIndex:
                raise
            except DataError as caught:
                bad[int(other.ids[0])] = str(caught)
                continue
            return Substitute(row, other, bad)
        raise DataError(f"{_ATTEMPTS} images offered in place of a bad one are bad themselves; the first: {error}")

    def settle(self, plan: BatchPlan, substitutes: list[Substitute]) -> BatchPlan:
        """Return the plan of what is shown. To be called once a batch, in order.

        Raises:
            DataError: naming the image that is one too many.
        """
        if not substitutes:
            return plan
        shown = BatchPlan(plan.ids.copy(), plan.keys.copy(), plan.crops.copy(), plan.flips.copy())
        for substitute in sorted(substitutes, key=lambda each: each.row):
            for index, reason in substitute.bad.items():
                self._note(index, reason)
            # Said to mypy, which now and then takes columns of different types for objects.
            columns, values = cast(Columns, shown), cast(Columns, substitute.plan)
            for column, value in zip(columns, values, strict=True):
                column[substitute.row] = value[0]
        return shown

    def _note(self, index: int, reason: str) -> None:
        if index in self._met:
            return
        self._met.add(index)
        if len(self._met) > self._most:
            raise DataError(
                f"{len(self._met)} different images of this rank are bad, more than data.max_bad_images={self._most}. "
                f"The last: {reason} Mend the data, or set data.max_bad_images higher."
            )
        logger.warning(f"bad image {len(self._met)} of at most {self._most}, another is shown in its place: {reason}")


def make_or_replace(
    bad_images: BadImages | None, plan: BatchPlan, row: int, make: Callable[[BatchPlan, int], None]
) -> Substitute | None:
    """Make one image of a plan, or, where the policy has it so, another in its place.

    Args:
        bad_images: the policy; None: a bad image raises.
        plan: the batch's.
        row: which of its images.
        make: makes the pixels of one row of a plan; raises DataError where the image is bad.

    Returns:
        What took the image's place; None where nothing had to.
    """
    try:
        make(plan, row)
    except StaleIndex:
        raise
    except DataError as error:
        if bad_images is None:
            raise
        return bad_images.substitute(plan, row, error, lambda other: make(other, 0))
    return None
