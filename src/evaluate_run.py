"""From a checkpoint to its accuracy."""

from pathlib import Path
from typing import Any

from torch import Tensor

from src.build import evaluate_model, loader_threads, stuck_seconds
from src.build_model import build_live_model
from src.config import Config, ConfigError, Problem
from src.data.build_engine import build_engine, choose_engine
from src.session import Place, open_val
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


def evaluated_weights(config: Config, state: dict[str, Any], path: Path, *, trained: bool) -> tuple[str, dict[str, Tensor]]:
    """Return the weights to evaluate, and what the protocol calls them.

    Raises:
        ConfigError: if an average is wanted and the checkpoint was saved between two evaluations, where there is none.
    """
    if trained or config.average.name == "none":
        return "trained", state["model"]
    last = state["history"][-1] if state["history"] else {}
    if last.get("step") != state["step"] or "protocol" not in last:
        fix = "was saved in mid-epoch, without the averaged weights. Take best.ckpt, or add weights=trained."
        raise ConfigError("the checkpoint", [Problem("checkpoint", str(path), fix)])
    evaluated = state["evaluation"]
    return last["protocol"]["weights"], state["model"] if evaluated is None else evaluated
