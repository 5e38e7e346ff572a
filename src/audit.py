"""Audit a run: is its record what its configuration, this code and the data compute? Nothing is written.

python -m src.audit runs/<name>
python -m src.audit runs/<name> windows=10 steps=100 evaluate=true
python -m src.audit runs/<name> data.path=/where/the/data/lies/now
torchrun --standalone --nproc_per_node=4 -m src.audit runs/<name>
"""

import argparse
import json
import sys
from collections.abc import Sequence

from src.config import ConfigError
from src.config.audit import AuditOrder, load_audit
from src.config.cli import exit_with
from src.config.overrides import CONF_DIR

EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Parse, and audit. Returns the exit code: 0 all agrees, 1 something does not, 2 it cannot be audited."""
    parser = argparse.ArgumentParser(
        prog="python -m src.audit",
        description="Audit a run: replay random windows of it after kept checkpoints, and compute again what its record claims.",
        epilog=f"keys, with their defaults (conf/audit.yaml):\n{(CONF_DIR / 'audit.yaml').read_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    help_text = "the run's folder, keys as below, and values that replace stored ones, such as data.path=... where the data moved"
    parser.add_argument("words", nargs="*", metavar="runs/<name> key=value", help=help_text)
    try:
        order = load_audit(parser.parse_args(arguments).words)
        return run(order)
    except ConfigError as error:
        exit_with(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def run(order: AuditOrder) -> int:
    """Audit in this process, which is one rank."""
    from src.auditing.record import read_record
    from src.auditing.run import audit
    from src.batch import DataError
    from src.session import exit_code_after, joined
    from src.tracking.console import say_result

    record = read_record(order.folder, order.overrides)
    with joined(record.config) as place:
        try:
            verdict = audit(order.audit, record, place)
        except (ConfigError, DataError) as error:
            return exit_code_after(error, place)
        if place.world.leads:
            place.console.print(verdict.table())
            say_result(json.dumps(verdict.as_json()))
    return verdict.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
