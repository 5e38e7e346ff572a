"""Audit a run: is its record what its configuration, this code and the data compute? Nothing is written.

python -m src.audit runs/<name>
python -m src.audit runs/<name> windows=10 steps=100 evaluate=true
python -m src.audit runs/<name> data.path=/where/the/data/lies/now
torchrun --standalone --nproc_per_node=4 -m src.audit runs/<name>
"""

import json
import sys
from collections.abc import Sequence

from src.config import ConfigError
from src.config.audit import AuditOrder, load_audit
from src.config.door import door, parser_of


@door
def main(arguments: Sequence[str]) -> int:
    """Parse, and audit. Returns the exit code: 0 all agrees, 1 something does not, 2 it cannot be audited."""
    about = "Audit a run: replay random windows of it after kept checkpoints, and compute again what its record claims."
    keys = "keys, with their defaults (conf/audit.yaml):\n"
    what = "the run's folder, keys as below, and values that replace stored ones, such as data.path=... where the data moved"
    parser = parser_of("audit", about, before=keys, metavar="runs/<name> key=value", help_text=what)
    return run(load_audit(parser.parse_args(arguments).words))


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
