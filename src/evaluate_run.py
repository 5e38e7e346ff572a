"""From a checkpoint to its accuracy."""

from pathlib import Path
from typing import Any

from src.build import evaluate_model, loader_threads, stuck_seconds
from src.build_model import build_live_model
from src.config import Config, ConfigError, Problem
from src.data.build_engine import build_engine, choose_engine
from src.session import Place, open_val
from src.trained import evaluated_weights
from src.training.evaluation import EvalResult
from src.training.precision import choose_precision


def evaluate_checkpoint(config: Config, state: dict[str, Any], path: Path, place: Place, *, trained: bool) -> EvalResult:
    """Evaluate at the weights that the training evaluated, or at the trained ones. Every rank must call it.

    Args:
        config: the checkpoint's, with what the user replaced.
        state: the checkpoint.
        path: where it stands, for messages.
        place: this process.
        trained: whether to leave an average of them aside.

    Raises:
        ConfigError: if the data's classes are not the checkpoint's, or it holds no evaluation weights.
    """
    world, device = place.world, place.device
    source = open_val(config, place)
    if tuple(state["classes"]) != source.classes:
        fix = f"its {len(source.classes)} classes are not the {len(state['classes'])} that {path} was trained on."
        raise ConfigError("the data", [Problem("data", config.data.name, fix)])
    name, weights = evaluated_weights(config, state, path, trained=trained)
    precision = choose_precision(config.precision, device)
    model = build_live_model(config, precision, device, num_classes=len(source.classes))
    model.load_state_dict(weights)
    model.eval()
    threads, limit = loader_threads(config, world), stuck_seconds(config)
    engine = build_engine(config.data, choose_engine(config.data), source, device=device, threads=threads, stuck_seconds=limit)
    try:
        return evaluate_model(config, world, device, model, engine, source, precision, weights=name, passing=iter)
    finally:
        engine.close()
