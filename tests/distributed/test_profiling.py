"""debug=profile on two ranks: one verdict from both views, one writer."""

import gzip
import json
from pathlib import Path

from tests.distributed.conftest import TINY, Torchrun


def test_ranks_that_mostly_exchange_gradients_are_bound_by_communication(torchrun: Torchrun, tmp_path: Path) -> None:
    model = ("model=custom", "model.factory=tests.distributed.much_to_exchange:much_to_exchange")
    data = tuple(item for item in TINY if not item.startswith(("model", "batch_size")))
    run = ("batch_size=8", "profile_steps=4", "optim.momentum=0", "optim.peak_lr=1e-6", f"runs_dir={tmp_path}", "run_name=r")
    done = torchrun(2, "-m", "src.train", *data, *model, *run)
    folder = tmp_path / "r" / "profile"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["bound_by"] == "communication", summary
    assert len(summary["ranks"]) == 2
    assert summary["by_rank"] == min((0, 1), key=lambda rank: summary["ranks"][rank]["communication"])
    assert min(shares["communication"] for shares in summary["ranks"]) > 0.2
    assert f"of rank {summary['by_rank']}, for which the others wait" in done.stderr
    assert done.stderr.count("bound by communication") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["operations.txt", "summary.json", "trace.json.gz"]
    events = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]
    assert any(event["name"] == "gloo:all_reduce" for event in events)
