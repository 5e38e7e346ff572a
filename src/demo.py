"""Show a trained model on a page: an image in, the five most probable classes out.

python -m src.demo checkpoint=runs/<run_name>
python -m src.demo checkpoint=... port=8000 listen=true examples=my_pictures
python -m src.demo checkpoint=... space=my_space        # the folder of a Hugging Face Space
"""

import sys
from collections.abc import Sequence

from src.config import ConfigError, Problem
from src.config.demo import DemoOrder, load_demo
from src.config.door import STAGE, door, end_at_sigterm, parser_of


@door
def main(arguments: Sequence[str]) -> int:
    """Parse, and show. Returns the exit code."""
    end_at_sigterm()
    order = parse(arguments)
    from src.demo_page.serving import show

    return show(order)


def parse(arguments: Sequence[str]) -> DemoOrder:
    """Read the command line; answer --help here, and exit with 0.

    Raises:
        ConfigError: with every problem at once.
    """
    about = "Show a trained model on a page of this machine; or write the folder of a Hugging Face Space."
    parser = parser_of("demo", about, before="keys:\n", after="\nall others replace values of the model's own configuration")
    parsed, unknown = parser.parse_known_intermixed_args(arguments)
    if unknown:
        fix = "no such option. Keys have no dashes; see python -m src.demo --help."
        raise ConfigError(STAGE, [Problem(text, None, fix) for text in unknown])
    return load_demo(parsed.words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
