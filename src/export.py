"""Export a trained model in the forms that others use, each checked against the model itself.

    python -m src.export checkpoint=runs/<run_name>
    python -m src.export checkpoint=runs/<run_name> target=exports/mine formats=safetensors,torch_export,onnx,int8 check_images=all
    python -m src.export checkpoint=runs/<run_name> data.path=/another/place

It writes one folder, which others load without this project: model.safetensors, model.pt2 (torch.export), model.onnx,
model.int8.onnx, config.json, labels.txt, and README.md, a model card. It appears when all is made and checked, or not at all.
"""

import json
import sys
from collections.abc import Sequence

from src.config.door import EXIT_FAILED, door, parser_of
from src.config.export import ExportKeys, load_export

EXIT_PREEMPTED = 75


@door
def main(arguments: Sequence[str]) -> int:
    """Parse, and export. Returns the exit code."""
    about = "Export a trained model in the forms that others use, each checked against the model itself."
    keys = "keys, besides values that replace the run's own, such as data.path=...:\n"
    return run(*load_export(parser_of("export", about, before=keys).parse_args(arguments).words))


def run(keys: ExportKeys, others: Sequence[str]) -> int:
    """Export in this process."""
    from src.batch import DataError
    from src.exporting.run import ExportError, export
    from src.tracking.console import say_result
    from src.training.stopping import Preempted

    try:
        result = export(keys, others)
    except (DataError, ExportError, OSError) as error:
        print(error, file=sys.stderr, flush=True)
        return EXIT_FAILED
    except Preempted:  # while it trained what it pruned
        return EXIT_PREEMPTED
    say_result(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
