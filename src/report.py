"""Report runs: figures, tables, a comparison of groups, and one HTML page that needs nothing else.

    python -m src.report runs/demo-s0 runs/demo-s1 runs/demo-s2
    python -m src.report 'runs/demo-s*' 'runs/adam-s*' against='runs/demo-s*' target=runs/report
    python -m src.report runs

Runs that differ in nothing but the seed are one group. Nothing is trained or evaluated, and no checkpoint is opened.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from src.config import ConfigError
from src.config.cli import exit_with
from src.config.overrides import CONF_DIR
from src.config.report import load_report

EXIT_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, met wherever Ctrl-C would be."""


def main(arguments: Sequence[str]) -> int:
    """Parse, and make the report. Returns the exit code."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _terminate)
    parser = argparse.ArgumentParser(
        prog="python -m src.report",
        description=f"{__doc__}",
        epilog="keys:\n" + (CONF_DIR / "report.yaml").read_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="<run> | key=value", help="runs' folders, folders of them, or patterns; keys")
    try:
        words, config = load_report(parser.parse_args(arguments).words)
        from src.reporting.make import make_report
        from src.tracking.console import start_console

        start_console(speaks=True)
        result = make_report(words, config)
    except ConfigError as error:
        exit_with(error)
    except _TerminatedError:
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    print(json.dumps({"status": "finished", **result, "seconds": round(time.monotonic() - started, 1)}), flush=True)
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
