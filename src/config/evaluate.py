"""What `python -m src.evaluate` is asked for, besides the trainer's keys. Its defaults stand in conf/evaluate.yaml."""

from collections.abc import Sequence
from typing import Literal

from src.config.door import load_keys
from src.config.errors import Problem
from src.config.fields import Flag, Strict, Text

_PATHS = ("checkpoint", "target", "test")


class EvaluateConfig(Strict):
    """What is evaluated, and what is written about it. See conf/evaluate.yaml for each key's meaning and default."""

    checkpoint: Text | None
    weights: Literal["evaluated", "trained"]
    target: Text | None
    logits: Flag
    compare: Literal["none", "pillow"]
    test: Text | None
    submission: Literal["none", "kaggle"]


def load_evaluate(overrides: Sequence[str]) -> tuple[EvaluateConfig, list[str]]:
    """Validate the keys of conf/evaluate.yaml.

    Returns:
        the keys, and what belongs to the trainer, in order.

    Raises:
        ConfigError: with every problem at once.
    """
    given = [text.partition("=")[0] for text in overrides]
    twice = [Problem(key, None, "was given more than once.") for key in EvaluateConfig.model_fields if given.count(key) > 1]
    return load_keys(EvaluateConfig, "evaluate.yaml", overrides, as_typed=_PATHS, others=True, found=twice, check=_do_not_fit)


def _do_not_fit(evaluate: EvaluateConfig) -> list[Problem]:
    problems = []
    if evaluate.checkpoint is None:
        problems.append(Problem("checkpoint", None, "must be given: checkpoint=<path>."))
    if evaluate.test is None and evaluate.submission != "none":
        problems.append(Problem("submission", evaluate.submission, "is about unlabelled images. Add test=<their folder>."))
    if evaluate.test is not None:
        if evaluate.target is None:
            problems.append(Problem("target", None, "must be given with test: target=<folder for predictions.csv>."))
        if evaluate.compare != "none":
            problems.append(Problem("compare", evaluate.compare, "compares accuracies, and images of test have no labels."))
    if evaluate.logits and evaluate.target is None:
        problems.append(Problem("logits", True, "needs a place to go: add target=<folder>."))
    return problems
