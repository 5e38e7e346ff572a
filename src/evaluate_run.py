"""From a checkpoint to its accuracy."""

from pathlib import Path
from typing import Any

from src.build import build_live_model, evaluate_model, loader_threads
from src.config import Config, ConfigError, Problem
from src.data.build_engine import build_engine, choose_engine
from src.session import Place, open_val
from src.training.evaluation import EvalResult
from src.training.precision import choose_precision


def evaluate_checkpoint(config: Config, state: dict[str, Any], path: Path, place: Place) -> EvalResult:
    """Evaluate at the checkpoint's evaluation weights. Every rank must call it.

    Args:
        config: the checkpoint's, with what the user replaced.
        state: the checkpoint.
        path: where it stands, for messages.
        place: this process.

    Raises:
        ConfigError: if the data's classes are not the checkpoint's, or it holds no evaluation weights.
    """
    world, device = place.world, place.device
    source = open_val(config, place)
    if tuple(state["classes"]) != source.classes:
        fix = f"its {len(source.classes)} classes are not the {len(state['classes'])} that {path} was trained on."
        raise ConfigError("the data", [Problem("data", config.data.name, fix)])
    averaged = config.average.name != "none"
    if averaged and state["evaluation"] is None:
        fix = "was saved in mid-epoch, without the averaged weights. Take best.ckpt, or let the run reach an evaluation."
        raise ConfigError("the checkpoint", [Problem("checkpoint", str(path), fix)])
    precision = choose_precision(config.precision, device)
    model = build_live_model(config, precision, device, num_classes=len(source.classes))
    model.load_state_dict(state["evaluation"] if averaged else state["model"])
    model.eval()
    name = choose_engine(config.data)
    engine = build_engine(config.data, name, source, device=device, threads=loader_threads(config, world))
    try:
        weights = config.average.name if averaged else "trained"
        return evaluate_model(config, world, device, model, engine, source, precision, weights=weights)
    finally:
        engine.close()
