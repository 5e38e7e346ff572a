"""docs/colab_sanity.ipynb, run top to bottom by a real kernel, with small settings in its one cell of parameters."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LAUNCHER_VARIABLES
from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT

NOTEBOOK = ROOT / "docs/colab_sanity.ipynb"
DATA = ROOT / "data/fashion_mnist"
SMALL = ["data.subset=1000", "data.val_subset=200", "epochs=4", "track.log_every_steps=5", "keep_top_k=1"]
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (pip install -e '.[dev]')")


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_valid_small_and_holds_no_output() -> None:
    read = notebook()
    nbformat.validate(read)
    cells = [cell for cell in read.cells if cell.cell_type == "code"]
    assert NOTEBOOK.stat().st_size < 20_000
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


def test_one_cell_has_the_parameters_and_the_full_demo_is_the_default() -> None:
    (cell,) = [cell for cell in notebook().cells if "parameters" in cell.metadata.get("tags", ())]
    values: dict[str, Any] = {}
    exec(cell.source, values)
    assert (values["DATA"], values["SETTINGS"], values["EXPECTED"]) == ("data/fashion_mnist", [], 90.0)


@pytest.mark.skipif(not (DATA / "val").is_dir(), reason="data/fashion_mnist is not there: run `make data`")
def test_it_runs_top_to_bottom_stops_goes_on_and_draws_a_curve(open_shell: OpenShell, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (pip install -e '.[dev]')")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (pip install -e '.[dev]')")
    project = open_shell().project
    (project / "docs").mkdir()
    shutil.copy2(NOTEBOOK, project / "docs")
    for name, value in {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "IPYTHONDIR": str(project / "ipython")}.items():
        monkeypatch.setenv(name, value)
    for name in (*LAUNCHER_VARIABLES, "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    read = notebook()
    place = next(number for number, cell in enumerate(read.cells) if "parameters" in cell.metadata.get("tags", ()))
    chosen = f"DATA, SETTINGS, EXPECTED = {str(DATA)!r}, {SMALL!r}, 20.0"
    read.cells.insert(place + 1, nbformat.v4.new_code_cell(chosen))
    nbclient.NotebookClient(read, timeout=280, kernel_name="python3", resources={"metadata": {"path": project / "docs"}}).execute()

    told = "".join(output.get("text", "") for cell in read.cells for output in cell.get("outputs", ()))
    assert "exit code 75 at step" in told, told
    assert "\x1b" not in told, "progress bars leave a trail in a notebook"
    shown = [kind for cell in read.cells for output in cell.get("outputs", ()) for kind in output.get("data", ())]
    assert "image/png" in shown
    run = project / "runs/sanity"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(5, 61, 5))
    assert json.loads((run / "status.json").read_text())["step"] == 60
    assert list(Path(project / "docs").iterdir()) == [project / "docs" / NOTEBOOK.name]
