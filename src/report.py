"""Report runs: figures, tables, a comparison of groups, and one HTML page that needs nothing else.

    python -m src.report runs/demo-s0 runs/demo-s1 runs/demo-s2
    python -m src.report 'runs/demo-s*' 'runs/adam-s*' against='runs/demo-s*' target=runs/report
    python -m src.report runs

Runs that differ in nothing but the seed are one group. Nothing is trained or evaluated, and no checkpoint is opened.
"""

import json
import sys
import time
from collections.abc import Sequence

from src.config.door import door, end_at_sigterm, parser_of
from src.config.report import load_report


@door
def main(arguments: Sequence[str]) -> int:
    """Parse, and make the report. Returns the exit code."""
    started = time.monotonic()
    end_at_sigterm()
    what = "runs' folders, folders of them, or patterns; keys"
    parser = parser_of("report", f"{__doc__}", before="keys:\n", metavar="<run> | key=value", help_text=what)
    words, config = load_report(parser.parse_args(arguments).words)
    from src.reporting.make import make_report
    from src.tracking.console import start_console

    start_console(speaks=True)
    result = make_report(words, config)
    print(json.dumps({"status": "finished", **result, "seconds": round(time.monotonic() - started, 1)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
