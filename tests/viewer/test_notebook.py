"""The notebook, executed as it is in the repository."""

import base64
import json
import re
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


def write_log(path, run, **metrics):
    lines = [
        {"run_id": run, "step": step, "metrics": {name: value / step}}
        for step in range(1, 30)
        for name, value in metrics.items()
    ]
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def given(logs, metrics):
    """The notebook with its first cells filled in, as its reader does it."""
    notebook = read()
    for cell in code_of(notebook):
        if cell.source.startswith("LOGS"):
            cell.source = f"LOGS = {[str(log) for log in logs]!r}"
        if cell.source.startswith("METRICS"):
            cell.source = f'METRICS = {metrics!r}\nSMOOTH = 5\nXKEY = "step"'
    return notebook


def tables_and_pictures(cells):
    outputs = [output for cell in cells for output in cell.outputs]
    assert [o for o in outputs if o.output_type in ("error", "stream")] == []
    tables = [o.data["text/plain"] for o in outputs if "count" in o.data.get("text/plain", "")]
    return tables, [o for o in outputs if "image/png" in o.data]


def test_a_metric_may_be_in_one_of_the_logs_only(checkout, tmp_path):
    write_log(tmp_path / "a.jsonl", "a", **{"train.loss": 2.0, "lr": 0.1})
    write_log(tmp_path / "b.jsonl", "b", **{"train.loss": 3.0})
    (tmp_path / "empty.jsonl").touch()
    logs = [tmp_path / f"{name}.jsonl" for name in ("empty", "a", "b")]
    cells = execute(given(logs, ["train.loss", "lr"]), checkout)
    tables, pictures = tables_and_pictures(cells)
    assert [table.count("train.loss") for table in tables] == [1, 1]
    assert len(pictures) == 1


def test_an_empty_log_ends_as_the_command_does(checkout, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(CellExecutionError, match="Empty DataFrame provided to plot_metrics"):
        execute(given([tmp_path / "empty.jsonl"], ["train.loss"]), checkout)


def test_each_run_of_a_directory_has_a_table_of_its_own(checkout, tmp_path):
    for run, loss in (("first", 2.0), ("second", 8.0)):
        (tmp_path / run).mkdir()
        write_log(tmp_path / run / "metrics.jsonl", run, **{"train.loss": loss})
    tables, pictures = tables_and_pictures(execute(given([tmp_path], ["train.loss"]), checkout))
    assert [table.split()[0] for table in tables] == ["count", "count"]
    named = [re.search(r"^(\S+) +\n?", table.splitlines()[1])[1] for table in tables]
    assert [name.split("/")[0] for name in named] == ["first", "second"]
    assert [float(re.search(r"train\.loss.*", table)[0].split()[3]) for table in tables] == [2, 8]
    assert len(pictures) == 1
