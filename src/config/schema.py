"""The whole configuration as one frozen, validated object. Its rules across groups stand on the class that owns both sides."""

from typing import Annotated, Literal

from pydantic import field_validator, model_validator

from src.config.augment import AugmentConfig
from src.config.average import AverageConfig, EvaluateScheduleFree
from src.config.data import DataConfig
from src.config.fields import (
    BelowOne,
    Count,
    CountOrZero,
    Flag,
    NonNegative,
    Positive,
    PositiveFraction,
    Seed,
    Strict,
    Text,
    bookkeeping,
)
from src.config.model import ModelConfig
from src.config.optim import OptimConfig, ScheduleFreeAdamW, ScheduleFreeSgd
from src.config.schedule import ScheduleConfig
from src.config.track import TrackConfig


class Config(Strict):
    """Everything a run is. See conf/config.yaml for each key's meaning and default."""

    seed: Seed
    epochs: Count
    batch_size: Count
    max_local_batch_size: Count | None
    eval_batch_size: Count
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"]
    channels_last: Flag
    compile: Flag
    deterministic: Flag
    max_grad_norm: Positive | None
    max_skipped_steps: Count
    loss: Literal["cross_entropy", "bce"]
    label_smoothing: BelowOne
    bce_threshold: PositiveFraction | None
    bce_sum_classes: Flag
    test_time_augmentation: Literal["none", "flip"]
    eval_every_epochs: Count
    save_every_steps: Annotated[Count, bookkeeping()]
    keep_top_k: Annotated[CountOrZero, bookkeeping()]
    runs_dir: Annotated[Text, bookkeeping()]
    run_name: Annotated[Text | None, bookkeeping()]
    resume: Annotated[Text, bookkeeping()]
    dry_run: Annotated[Flag, bookkeeping()]
    timeout_seconds: Annotated[Positive, bookkeeping()]
    profile_steps: Annotated[CountOrZero, bookkeeping()]
    target_hours: Annotated[list[Positive], bookkeeping()]
    estimate_seconds: Annotated[NonNegative, bookkeeping()]
    price_per_hour: Annotated[Positive | None, bookkeeping()]
    price_currency: Annotated[Text, bookkeeping()]

    data: DataConfig
    model: ModelConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    augment: AugmentConfig
    average: AverageConfig
    track: Annotated[TrackConfig, bookkeeping()]

    @field_validator("run_name")
    @classmethod
    def _one_folder(cls, name: str | None) -> str | None:
        if name is not None and (name in {".", ".."} or set(name) & set("/\\\0\n")):
            raise ValueError("a run_name is one folder's name, without slashes. Set runs_dir for where it stands.")
        return name

    @model_validator(mode="after")
    def _groups_fit(self) -> "Config":
        problems = []
        if self.loss != "bce" and (self.bce_threshold is not None or self.bce_sum_classes):
            key, value = ("bce_threshold", self.bce_threshold) if self.bce_threshold is not None else ("bce_sum_classes", "true")
            problems.append(f"{key}={value} says nothing to loss={self.loss}. Set loss=bce, or leave {key} away.")
        schedule_free = isinstance(self.optim, ScheduleFreeSgd | ScheduleFreeAdamW)
        if schedule_free and self.schedule.name != "constant":
            problems.append(
                f"schedule={self.schedule.name} does not fit optim={self.optim.name}, which needs no decay of the rate. "
                f"Leave schedule away (optim={self.optim.name} sets schedule=constant)."
            )
        if schedule_free != isinstance(self.average, EvaluateScheduleFree):
            fitting = "schedule_free" if schedule_free else "none (or ema, swa)"
            problems.append(
                f"average={self.average.name} does not fit optim={self.optim.name}. Set average={fitting}, or leave it away."
            )
        if self.schedule.warmup_epochs > self.epochs:
            problems.append(
                f"schedule.warmup_epochs={self.schedule.warmup_epochs:g} is longer than epochs={self.epochs}. "
                f"Set schedule.warmup_epochs={self.epochs} or less."
            )
        if isinstance(self.data.subset, int) and self.data.subset < self.batch_size:
            problems.append(
                f"data.subset={self.data.subset} is less than batch_size={self.batch_size}, so an epoch has no step. "
                f"Set batch_size={self.data.subset} or less."
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self
