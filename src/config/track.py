"""Schema of the track group: what is written down, how often, and to whom else it is told."""

from typing import Annotated, Literal

from pydantic import Field

from src.config.fields import Count, Flag, Strict, Text


class TrackCommon(Strict):
    """What every choice is asked for. metrics.jsonl and the console are always there."""

    log_every_steps: Count
    progress: Flag
    tensorboard: Flag


class TrackLocally(TrackCommon):
    """The run's folder and the console."""

    name: Literal["default"]


class TrackTensorboard(TrackCommon):
    """TensorBoard as well: the choice by which `track.tensorboard=true` has a name of its own."""

    name: Literal["tensorboard"]
    tensorboard: Literal[True]


class TrackWandb(TrackCommon):
    """Weights & Biases as well. The key comes from the environment, .env or .netrc, never from here."""

    name: Literal["wandb"]
    project: Text
    entity: Text | None
    tags: list[Text]
    mode: Literal["auto", "online", "offline"]


TrackConfig = Annotated[TrackLocally | TrackTensorboard | TrackWandb, Field(discriminator="name")]
