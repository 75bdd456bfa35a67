"""The notebook, executed as it is in the repository."""

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).parent.parent.parent
NOTEBOOK = ROOT / "notebooks" / "metrics_viewer.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy with a run of the demo in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("telemetry", "notebooks"):
        hidden = shutil.ignore_patterns("__pycache__", "outputs")
        shutil.copytree(ROOT / package, folder / package, ignore=hidden)
    subprocess.run(
        [sys.executable, "-m", "telemetry", "demo", "--out", folder / "runs", "--run-id", "r1"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=300,
    )
    return folder


def execute(notebook, folder):
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder / "notebooks")}}
    ).execute()
    return code_of(notebook)


def test_outputs_are_cleared_in_the_repository():
    for cell in code_of(read()):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert "widgets" not in read().metadata


def test_it_loads_lists_plots_and_saves_a_run_of_the_demo(checkout):
    notebook = read()
    notebook.cells.append(nbformat.v4.new_code_cell("import telemetry; telemetry.__file__"))
    cells = execute(notebook, checkout)
    outputs = [output for cell in cells for output in cell.outputs]
    assert [o for o in outputs if o.output_type in ("error", "stream")] == []  # no warnings either
    table = next(o.data["text/plain"] for o in outputs if "count" in o.data["text/plain"])
    assert "training.loss" in table
    pictures = [o.data["image/png"] for o in outputs if "image/png" in o.data]
    assert len(pictures) == 1
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")
    saved = checkout / "notebooks" / "outputs" / "metrics.png"
    assert saved.read_bytes().startswith(b"\x89PNG")
    used = cells[-1].outputs[0].data["text/plain"]
    assert used == repr(str(checkout / "telemetry" / "__init__.py"))


def test_a_metric_that_is_not_there_ends_with_the_nearest(checkout):
    notebook = read()
    cell = next(cell for cell in code_of(notebook) if cell.source.startswith("METRICS"))
    cell.source = cell.source.replace('"train.loss"', '"train.lss"')
    with pytest.raises(
        CellExecutionError, match=r"no metric 'train\.lss'\. Nearest: training\.loss"
    ):
        execute(notebook, checkout)
