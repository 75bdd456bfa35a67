"""What `telemetry.viewer` exports, and what that costs."""

import subprocess
import sys

import pytest

from telemetry import viewer

NAMES = [
    "BadLinesWarning",
    "clip",
    "downsample",
    "filter_metrics",
    "follow_entries",
    "global_step",
    "moving_average",
    "plot_metrics",
    "read_entries",
    "read_jsonl",
    "save_plot",
    "summarize",
]


def test_the_exported_names_are_these():
    assert viewer.__all__ == NAMES
    assert set(NAMES) <= set(dir(viewer))


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_what_it_is_called(name):
    assert getattr(viewer, name).__name__ == name


def test_another_name_is_none():
    with pytest.raises(AttributeError, match=r"module 'telemetry\.viewer' has no attribute 'plot'"):
        viewer.plot  # noqa: B018 -- the look-up is what fails


def test_the_package_imports_nothing_that_is_optional():
    probe = "import sys, telemetry.viewer; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    optional = {"duckdb", "matplotlib", "numpy", "pandas", "plotext", "plotly", "starlette"}
    assert "telemetry" in loaded
    assert not loaded & optional
