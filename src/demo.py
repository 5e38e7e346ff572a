"""Show a trained model on a page: an image in, the five most probable classes out.

python -m src.demo checkpoint=runs/<run_name>
python -m src.demo checkpoint=... port=8000 listen=true examples=my_pictures
python -m src.demo checkpoint=... space=my_space        # the folder of a Hugging Face Space
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from src.config import ConfigError, Problem
from src.config.cli import exit_with
from src.config.demo import DemoOrder, load_demo
from src.config.overrides import CONF_DIR

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, met wherever Ctrl-C would be."""


def main(arguments: Sequence[str]) -> int:
    """Parse, and show. Returns the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        order = parse(arguments)
        from src.demo_page.serving import show

        return show(order)
    except ConfigError as error:
        exit_with(error)
    except _TerminatedError:
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def parse(arguments: Sequence[str]) -> DemoOrder:
    """Read the command line; answer --help here, and exit with 0.

    Raises:
        ConfigError: with every problem at once.
    """
    parser = argparse.ArgumentParser(
        prog="python -m src.demo",
        description="Show a trained model on a page of this machine; or write the folder of a Hugging Face Space.",
        epilog="keys:\n" + (CONF_DIR / "demo.yaml").read_text() + "\nall others replace values of the model's own configuration",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
    parsed, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        fix = "no such option. Keys have no dashes; see python -m src.demo --help."
        raise ConfigError("the command line", [Problem(text, None, fix) for text in unknown])
    return load_demo(parsed.overrides)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
