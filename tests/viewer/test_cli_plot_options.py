"""Which options of ``telemetry plot`` go together."""

import orjson
import pytest
from click.testing import CliRunner

from telemetry.cli import commands
from telemetry.cli.plot.command import BANDS as PLOT_BANDS
from telemetry.cli.plot.command import MODES as PLOT_MODES
from telemetry.cli.view import MODES as VIEW_MODES
from telemetry.viewer.charts.bands import BANDS
from telemetry.viewer.frames.smoothing import MODES


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [{"step": n, "metrics": {"train.loss": 1.0, "lr": 0.1 * n}} for n in range(1, 5)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in records))
    return tmp_path


def plot(*arguments):
    return CliRunner().invoke(commands, ["plot", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--list", "--follow"], "--list draws nothing, and takes no --follow."),
        (["--list", "--out", "x.png"], "--list draws nothing, and takes no --out."),
        (["--smooth-mode", "ema"], "--smooth-mode is for --smooth POINTS"),
        (["--list", "--x-key", "step"], "--list draws nothing, and takes no --x-key."),
        (["--list", "--labels", "A"], "--list draws nothing, and takes no --labels."),
        (["--list", "--smooth", "0"], "--list draws nothing, and takes no --smooth."),
        (["--json"], "--json is for --list."),
        (["--terminal", "--size", "3x3"], "--size is for a picture or a window: --out or --show."),
        (["--terminal", "--dpi", "30"], "--dpi is for a .png, such as --out metrics.png."),
        (["--out", "x.svg", "--dpi", "30"], "--dpi is for a .png, such as --out metrics.png."),
        (["--metrics", "-h"], "Option '--metrics' requires an argument."),
    ],
)
def test_options_that_would_do_nothing_are_refused(folder, arguments, message):
    done = plot("a.jsonl", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert list(folder.iterdir()) == [folder / "a.jsonl"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--list", "--metrics", "train.loss", "--json"],
        ["--size", "3x3", "--dpi", "30"],
        ["--terminal", "--out", "x.png", "--size", "3x3", "--dpi", "30"],
        ["--out", "x.svg", "--size", "3x3"],
        ["--smooth", "2", "--smooth-mode", "ema"],
    ],
)
def test_options_that_do_something_together_are_taken(arguments):
    assert plot("a.jsonl", *arguments).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [([""], "[LOG]..."), (["--input", ""], "--input"), (["--out", ""], "--out")],
)
def test_an_empty_path_is_not_this_directory(arguments, hint):
    done = plot(*arguments)
    assert done.exit_code == 2
    said = f"Invalid value for '{hint}': The path is empty. Is the variable set that it comes from?"
    assert said in done.stderr


def test_the_choices_are_those_that_there_are():
    """The command has its own list of them: what it is of needs NumPy, which takes a while."""
    assert PLOT_MODES == VIEW_MODES == MODES
    assert PLOT_BANDS == BANDS
