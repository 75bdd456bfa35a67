"""``telemetry plot``, as its user calls it."""

import html
import json
import re

import orjson
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from telemetry.cli import commands


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def steps(count=40, scale=1.0, **more):
    return [
        {"step": n, "metrics": {"train.loss": scale / n, "lr": 0.1, **more}}
        for n in range(1, count + 1)
    ]


def plot(*arguments):
    return CliRunner().invoke(commands, ["plot", *map(str, arguments)])


def texts_of(svg):
    """What is written in a picture: matplotlib says it in a comment before the outlines."""
    return [html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", svg.read_text())]


def test_a_first_look_needs_no_more_than_the_log(folder):
    write(folder / "metrics.jsonl", steps())
    done = plot("metrics.jsonl")
    assert (done.exit_code, done.output) == (0, "Wrote metrics.png\n")
    assert (folder / "metrics.png").read_bytes().startswith(b"\x89PNG")


def test_all_flags_of_the_guide_work_together(folder):
    for name in "ab":
        write(folder / f"{name}.jsonl", steps(**{"train.avg_loss": 1.0, "val.loss": 2.0}))
    done = plot(
        *(
            "--input",
            "a.jsonl",
            "b.jsonl",
            "--metrics",
            "train.loss",
            "val.loss",
            "--x-key",
            "step",
        ),
        *("--smooth", 5, "--smooth-mode", "ema", "--downsample", 20, "--prefer-avg"),
        *("--clip-pct", 1, 99, "--log", "--labels", "one", "two", "--title", "Both"),
        *("--size", "6x3", "--out", "outputs/loss.svg"),
    )
    assert (done.exit_code, done.output) == (0, "Wrote outputs/loss.svg\n")
    texts = texts_of(folder / "outputs" / "loss.svg")
    assert {"one", "two", "train.avg_loss", "val.loss", "Both", "step"} <= set(texts)
    assert "train.loss" not in texts


def test_runs_are_called_as_their_files(folder):
    for name in "ab":
        write(folder / name / "metrics.jsonl", steps())
    assert plot("a", "b", "--out", "x.svg").exit_code == 0
    assert {"a/metrics", "b/metrics"} <= set(texts_of(folder / "x.svg"))


def test_of_a_directory_the_newest_log_is_drawn(folder):
    import os

    old = write(folder / "runs" / "old" / "metrics.jsonl", steps())
    new = write(folder / "runs" / "new" / "metrics.jsonl", steps())
    os.utime(old, (1000, 1000))
    os.utime(new, (2000, 2000))
    for arguments in (["runs"], []):
        assert plot(*arguments, "--out", "x.svg").exit_code == 0
        assert "runs/new/metrics.jsonl" in texts_of(folder / "x.svg")


def test_the_axis_is_the_step_unless_there_is_none(folder):
    write(folder / "epochs.jsonl", [{"epoch": n, "metrics": {"val.loss": 1.0}} for n in range(3)])
    stamps = [{"timestamp": f"2026-01-01T00:00:0{n}Z", "metrics": {"loss": 1.0}} for n in range(3)]
    write(folder / "times.jsonl", stamps)
    for name, label in (("epochs", "epoch"), ("times", "time (seconds)")):
        assert plot(f"{name}.jsonl", "--out", f"{name}.svg").exit_code == 0
        assert label in texts_of(folder / f"{name}.svg")


def test_a_metric_can_be_the_axis(folder):
    write(
        folder / "a.jsonl",
        [{"step": n, "metrics": {"loss": 1 / n, "tokens": 512 * n}} for n in (1, 2)],
    )
    done = plot("a.jsonl", "--metrics", "loss", "--x-key", "tokens", "--out", "x.svg")
    assert done.exit_code == 0, done.output
    assert "tokens" in texts_of(folder / "x.svg")


def test_seeds_become_a_band(folder):
    for seed in (1, 2):
        write(folder / f"digits-seed{seed}.jsonl", steps(scale=seed))
    done = plot(*folder.glob("*.jsonl"), "--band", "minmax", "--out", "x.svg")
    assert done.exit_code == 0
    assert "digits-seed* (2 runs)" in texts_of(folder / "x.svg")


def test_the_terminal_shows_the_same_and_no_file_is_written(folder):
    write(folder / "a.jsonl", steps())
    done = plot("a.jsonl", "--terminal", "--metrics", "train.loss")
    assert done.exit_code == 0
    assert done.output.splitlines()[:2] == ["a.jsonl", "train.loss"]
    assert "\x1b" not in done.output
    assert list(folder.iterdir()) == [folder / "a.jsonl"]


def test_the_list_says_what_there_is(folder):
    write(folder / "a.jsonl", [*steps(3), {"step": 4, "metrics": {"train.loss": "Infinity"}}])
    done = plot("a.jsonl", "--list")
    assert [line.split() for line in done.output.splitlines()] == [
        ["metric", "values", "last", "at", "step"],
        ["train.loss", "4", "Infinity", "4"],
        ["lr", "3", "0.1", "3"],
    ]
    assert json.loads(plot("a.jsonl", "--list", "--json").output) == [
        {"run": "a", "metric": "train.loss", "points": 4, "last": "Infinity", "step": 4.0},
        {"run": "a", "metric": "lr", "points": 3, "last": 0.1, "step": 3.0},
    ]


EMPTY = (
    "Error: Empty DataFrame provided to plot_metrics: a.jsonl has no metrics. A record needs an "
    "object 'measurements' or 'metrics' with numbers in it, or numbers at its top level.\n"
)


HINT = "'a.jsonl' is a file or directory: name logs before --metrics, or after --input."
NO_DISPLAY = (
    "--show needs a display, and matplotlib finds none here (its backend is agg). "
    "Use --out for a file, or --terminal."
)


@pytest.mark.parametrize("records", [[], [{"step": 1, "note": "hello"}]])
@pytest.mark.parametrize(
    "arguments", [[], ["--metrics", "train.loss"], ["--list"], ["--terminal"], ["--x-key", "epoch"]]
)
def test_a_log_without_metrics_fails_with_the_message_of_the_guide(folder, records, arguments):
    write(folder / "a.jsonl", records)
    done = plot("a.jsonl", *arguments)
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", EMPTY)
    assert not (folder / "metrics.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "There is no file 'missing.jsonl'."),
        (["none"], "The directory 'none' has no log: no file ends in .jsonl or .jsonl.gz."),
        (["*.gz"], "No file matches '*.gz'."),
        (
            ["a.jsonl", "--metrics", "train.lss"],
            "There is no metric 'train.lss'. Nearest: train.loss.",
        ),
        (
            ["--metrics", "train.loss", "a.jsonl"],
            "There is no metric 'a.jsonl'. Metrics: train.loss, lr. " + HINT,
        ),
        (
            ["a.jsonl", "--x-key", "stp"],
            "The axis 'stp' is on no record. Axes: step, or a metric. Did you mean 'step'?",
        ),
        (
            ["a.jsonl", "--out", "a.jsonl/x.png"],
            "Cannot write the picture 'a.jsonl/x.png': a folder of its path is a file.",
        ),
        (
            ["a.jsonl", "--out", "/proc/none/x.png"],
            "Cannot write the picture '/proc/none/x.png': No such file or directory.",
        ),
        (
            ["a.jsonl", "--labels", "x", "y"],
            "labels must be as many as there are runs, got 2 for 1 run (a): ['x', 'y'].",
        ),
        (
            ["a.jsonl", "--show"],
            NO_DISPLAY,
        ),
    ],
)
def test_what_cannot_be_drawn_fails_with_one_line(folder, arguments, message):
    write(folder / "a.jsonl", steps())
    (folder / "none").mkdir()
    done = plot(*arguments)
    assert (done.exit_code, done.stderr) == (1, f"Error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.jpg"], "A picture must be a .png, .svg or .pdf file, got 'x.jpg'."),
        (["--smooth", "-1"], "-1 is not in the range"),
        (["--smooth-mode", "gauss"], "'gauss' is not one of"),
        (["--clip-pct", "101"], "must be between 0 and 100, got 101.0."),
        (["--clip-pct", "1", "2", "3"], "--clip-pct takes one number or two, got 3."),
        (["--downsample", "3"], "must be 5 or more, got 3."),
        (["--size", "8"], "'8' is not WIDTHxHEIGHT in inches, from 1 to 100, such as 8x4.5."),
        (["--size", "800x4"], "'800x4' is not WIDTHxHEIGHT"),
        (["--metrics", "--log"], "Option '--metrics' requires an argument."),
        (["--json"], "--json is for --list."),
        (["--wrong"], "No such option"),
    ],
)
def test_a_wrong_option_is_a_matter_of_usage(folder, arguments, message):
    write(folder / "a.jsonl", steps())
    done = plot("a.jsonl", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_lines_that_cannot_be_read_are_a_warning(folder):
    path = write(folder / "a.jsonl", steps())
    path.write_bytes(b"garbage\n" + path.read_bytes() + b'{"step": 41, "metr')
    done = plot("a.jsonl")
    assert done.exit_code == 0
    assert done.stdout == "Wrote metrics.png\n"
    assert done.stderr.startswith("Warning: a.jsonl: no record in lines 1, 42 (")


def test_values_end_at_the_next_option_and_at_two_dashes(folder):
    write(folder / "a.jsonl", steps())
    for arguments in (
        ["--metrics", "train.loss", "lr", "--", "a.jsonl"],
        ["--metrics", "train.loss", "lr", "--log", "a.jsonl"],
        ["--clip-pct", "99", "a.jsonl", "--metrics=train.loss", "--metrics", "lr"],
    ):
        done = plot("--out", "x.svg", *arguments)
        assert done.exit_code == 0, done.output
        assert {"train.loss", "lr"} <= set(texts_of(folder / "x.svg")), arguments


def test_metrics_are_completed(folder):
    write(folder / "a.jsonl", steps(**{"val.loss": 1.0}))
    complete = ShellComplete(commands, {}, "telemetry", "_TELEMETRY_COMPLETE").get_completions
    found = complete(["plot", "a.jsonl", "--metrics"], "val")
    assert [item.value for item in found] == ["val.loss"]
    assert complete(["plot", "missing.jsonl", "--metrics"], "val") == []


def test_the_help_has_examples_and_says_what_the_status_means():
    done = plot("-h")
    assert "telemetry plot runs --terminal --follow" in done.output
    assert "The exit status is 1 if a log has no metrics" in done.output
