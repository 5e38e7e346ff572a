"""What `python -m src.demo` does: show a trained model on a page, or write the folder of a Space."""

import importlib.util
import json
import socket
from pathlib import Path

from loguru import logger

from src.config import ConfigError, Problem
from src.config.demo import DemoConfig, DemoOrder
from src.demo_page import server
from src.demo_page.about import about, examples
from src.demo_page.answering import TrainedAnswers
from src.demo_page.space import write_space
from src.demo_page.words import About, Limits
from src.exporting.check import ExportError
from src.session import device_name, joined
from src.tracking.console import say_result
from src.trained import Trained, assumed_classes, open_trained

_MIB = 2**20


def limits_of(demo: DemoConfig) -> Limits:
    """Return the limits for visitors."""
    return Limits(
        max_upload_bytes=demo.max_upload_mb * _MIB,
        max_pixels=demo.max_megapixels * 1_000_000,
        at_once=demo.at_once,
        queue_size=demo.queue_size,
        keep_seconds=demo.keep_seconds,
        keep_bytes=demo.keep_mb * _MIB,
        max_connections=demo.max_connections,
    )


def show(order: DemoOrder) -> int:
    """Serve until told to end (KeyboardInterrupt after Ctrl-C), or write a Space. Returns the exit code.

    Raises:
        ConfigError: with what to type instead.
    """
    demo, limits = order.demo, limits_of(order.demo)
    if demo.space is None:
        _require_gradio()
    trained = open_trained(Path(order.checkpoint), order.overrides, trained=demo.weights == "trained")
    trained = _with_classes(trained)
    said = about(trained, demo.title)
    if demo.space is not None:
        return _write(trained, said, demo, limits)
    with joined(trained.config) as place:
        answering = TrainedAnswers(trained, place, limits.max_pixels)
        shown = examples(trained.config, demo.examples, limits)
        taken = _bind(demo)
        host, port = taken.getsockname()
        url = f"http://{server.HERE}:{port}"
        if demo.listen:
            logger.warning(f"listen=true: everybody who can reach this machine can use the page on port {port}, without a password")

        def ready() -> None:
            logger.info(f"{said.title} ({device_name(place.device)}): {url}   Ctrl-C ends it")
            say_result(json.dumps({"status": "serving", "url": url, "host": host, "port": port}))

        server.run(said, limits, answering, shown, taken, framed_by="'none'", ready=ready)
    return 0


def _with_classes(trained: Trained) -> Trained:
    """Name the classes of a state dict: ImageNet's where there are 1,000, else numbers.

    Raises:
        ConfigError: nothing tells how many there are.
    """
    classes = assumed_classes(trained)
    if classes is None and trained.num_classes is not None:
        logger.warning("nothing tells what the classes are called: the page shows numbers. A folder of src.export has names.")
        classes = tuple(f"class {label}" for label in range(trained.num_classes))
    if classes is None:
        fix = "does not tell how many classes there are. Export it with its data first: python -m src.export --help"
        raise ConfigError("the checkpoint", [Problem("checkpoint", str(trained.path), fix)])
    return trained._replace(classes=classes)


def _write(trained: Trained, said: About, demo: DemoConfig, limits: Limits) -> int:
    assert demo.space is not None
    wanted = "none" if demo.examples == "auto" else demo.examples
    shown = examples(trained.config, wanted, limits)
    try:
        written = write_space(trained, said, limits, shown, Path(demo.space).expanduser())
    except ExportError as error:
        logger.error(f"{error}")
        return 1
    say_result(json.dumps({"status": "finished", **written}))
    return 0


def _require_gradio() -> None:
    if importlib.util.find_spec("gradio") is None:
        fix = "the page needs gradio, which is not installed: pip install -e '.[demo]'"
        raise ConfigError("the installation", [Problem("gradio", None, fix)])


def _bind(demo: DemoConfig) -> socket.socket:
    port = None if demo.port == "auto" else demo.port
    try:
        return server.bind(server.EVERYWHERE if demo.listen else server.HERE, port)
    except OSError as error:
        fix = f"cannot be opened ({error.strerror or error}). Type another port=<number>, or port=auto for a free one."
        raise ConfigError("the page's address", [Problem("port", demo.port, fix)]) from error
