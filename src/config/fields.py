"""The number types of the schema: strict (no "3" for 3, no true for 1), finite, and with their range."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Base of every part of the configuration: no unknown keys, never changed after the door. It holds no defaults; conf/ does."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def bookkeeping() -> Any:
    """Mark a field that cannot change what is computed (workers, logging, paths): it may differ when a run is resumed."""
    return Field(json_schema_extra={"bookkeeping": True})


Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1)]
Count = Annotated[int, Field(strict=True, ge=1)]
CountOrZero = Annotated[int, Field(strict=True, ge=0)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NonNegative = Annotated[float, Field(strict=True, ge=0)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
BelowOne = Annotated[float, Field(strict=True, ge=0, lt=1)]
PositiveFraction = Annotated[float, Field(strict=True, gt=0, le=1)]
InsideUnit = Annotated[float, Field(strict=True, gt=0, lt=1)]
