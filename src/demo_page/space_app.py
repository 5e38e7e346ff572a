"""What a Space's app.py starts: the same page, limits and guard, in front of the ONNX file beside it."""

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from . import server
from .onnx_answering import OnnxAnswers, Preprocessing
from .words import About, Limits

MODEL, SETTINGS, EXAMPLES = "model.onnx", "space.json", "examples"
_FRAMED_BY = "https://huggingface.co https://*.hf.space"


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, met wherever Ctrl-C would be."""


def main(folder: Path, arguments: Sequence[str]) -> int:
    """Serve the folder's model. Returns the exit code.

    Args:
        folder: of the Space.
        arguments: a port; none: 7860 in a Space, else the first free one from there on.
    """
    signal.signal(signal.SIGTERM, _terminate)
    in_space = os.environ.get("SYSTEM") == "spaces"  # there a proxy stands before it; elsewhere nobody asked to be reached
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    limits = Limits(**settings["limits"])
    try:
        answering = OnnxAnswers(folder / MODEL, settings["labels"], Preprocessing(**settings["preprocessing"]), limits.max_pixels)
        port = int(arguments[0]) if arguments else server.FIRST_PORT if in_space else None
        taken = server.bind(server.EVERYWHERE if in_space else server.HERE, port)
        said = About(settings["title"], tuple(settings["lines"]))
        shown = sorted((folder / EXAMPLES).iterdir()) if (folder / EXAMPLES).is_dir() else []

        def ready() -> None:
            print(f"http://{server.HERE}:{taken.getsockname()[1]}", flush=True)

        server.run(said, limits, answering, shown, taken, framed_by=_FRAMED_BY if in_space else "'none'", ready=ready)
    except ImportError as error:
        print(f"a package is missing ({error.name}): pip install -r requirements.txt", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"the page cannot be served: {error}", file=sys.stderr)
        return 1
    except _TerminatedError:
        return 143
    except KeyboardInterrupt:
        return 130
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError
