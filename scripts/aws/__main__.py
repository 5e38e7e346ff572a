"""EC2 instances and EBS volumes for a training, one command with subcommands.

    python -m scripts.aws volume create --name imagenet --size-gib 400 --zone us-east-1a --dry-run
    python -m scripts.aws instance launch --help
    python -m scripts.aws cost --help
    python -m scripts.aws policy

Exit codes: 0 done, 1 failed (type the same command again: it continues), 2 refused as typed, 130 Ctrl-C.
"""

import importlib
import sys
from collections.abc import Sequence

from scripts.aws.calls import say
from scripts.aws.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_REFUSED, FailedError, RefusedError
from scripts.aws.options import Parser, refuse_keys

# Every module has add_parsers(subparsers); a leaf's set_defaults(run=function) gets the parsed options and returns the exit code.
_GROUPS = {
    "volume": ("scripts.aws.volume", "an EBS volume for the data: create, attach, format, mount, snapshot, delete"),
    "instance": ("scripts.aws.instance", "an EC2 instance for the training: launch, setup, status, stop, start, terminate"),
    "cost": ("scripts.aws.cost", "what it costs, as a formula from the prices that you give"),
    "policy": ("scripts.aws.policy", "the least IAM policy that these commands need, as JSON"),
}


def main(arguments: Sequence[str]) -> int:
    """Parse and carry out one command. Returns the exit code."""
    try:
        refuse_keys(arguments)
        options = _parser(arguments).parse_args(arguments)
        return int(options.run(options))
    except RefusedError as error:
        say(str(error))
        return EXIT_REFUSED
    except FailedError as error:
        say(str(error))
        return EXIT_FAILED
    except OSError as error:
        say(f"{type(error).__name__}: {error}. Type the same command again: it continues.")
        return EXIT_FAILED
    except KeyboardInterrupt:
        say("Interrupted. Type the same command again: it continues.")
        return EXIT_INTERRUPTED


def _parser(arguments: Sequence[str]) -> Parser:
    """The parser, with the subcommands of the one group that was named: the others' modules are not even imported."""
    parser = Parser(prog="python -m scripts.aws", description=(__doc__ or "").partition("\n")[0])
    groups = parser.add_subparsers(dest="group", required=True, metavar=" | ".join(_GROUPS))
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    for group, (module, summary) in _GROUPS.items():
        if group == named:
            importlib.import_module(module).add_parsers(groups)
        else:
            groups.add_parser(group, help=summary)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
