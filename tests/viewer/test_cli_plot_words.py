"""What ``telemetry plot`` says of logs that are not as one thinks."""

import os
import re

import orjson
import pytest
from click.testing import CliRunner

from telemetry.cli import commands
from telemetry.cli.plot.pace import pause_after


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def write(path, records):
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


def steps(count=4, **metrics):
    return [
        {"step": n, "metrics": metrics or {"train.loss": 1.0, "training.lr": 0.1 * n}}
        for n in range(1, count + 1)
    ]


def plot(*arguments):
    return CliRunner().invoke(commands, ["plot", *map(str, arguments)])


EVIL = "a\x1b]0;pwned\x07b"


@pytest.mark.parametrize("arguments", [["--metrics", "none"], ["--metrics", "lr"], ["--list"], []])
def test_no_control_character_of_a_log_reaches_the_terminal(folder, arguments):
    one = [{"step": 1, "run_id": f"{EVIL}1", "metrics": {EVIL: 1.0, "lr": 1.0}}]
    other = [{"run_id": f"{EVIL}2", "metrics": {EVIL: 1.0}}]
    write(folder / f"{EVIL}.jsonl", one + other)
    for where in ([], ["--terminal"]):
        if where and "--list" in arguments:
            continue
        done = plot(*folder.glob("*.jsonl"), "--out", "x.svg", *arguments, *where)
        if "--list" in arguments:
            done = plot(*folder.glob("*.jsonl"), "--list")
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert "pwned" in done.output or "Wrote" in done.output
        assert not {"\x1b", "\x07"} & set(done.output)


def test_a_missing_file_with_such_a_name_is_told_in_one_line():
    done = plot("no\x1b[2J\n.jsonl")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "\x1b" not in done.stderr


def test_a_path_that_is_too_long_is_an_error_of_one_line():
    for arguments in (["y" * 300], ["--metrics", "y" * 300]):
        done = plot(*arguments)
        assert done.exit_code == 1
        assert re.fullmatch(r"Error: .+\n", done.stderr)


def test_a_picture_that_memory_may_not_have_is_a_matter_of_usage(folder):
    write(folder / "a.jsonl", steps())
    done = plot("a.jsonl", "--size", "100x100", "--dpi", 1200)
    assert done.exit_code == 2
    assert "would have 14,400 million pixels" in done.stderr


def test_a_user_who_is_nobody_is_a_name_as_any_other(folder):
    done = plot("~nobody-is-called-so/a.jsonl")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: There is no file '~nobody-is-called-so/a.jsonl'.\n",
    )
    write(folder / "a.jsonl", steps())
    done = plot("a.jsonl", "--out", "~nobody-is-called-so/a.svg")
    assert (done.exit_code, done.output) == (0, "Wrote ~nobody-is-called-so/a.svg\n")


def test_an_empty_name_of_a_metric_is_told(folder):
    write(folder / "a.jsonl", steps())
    done = plot("a.jsonl", "--metrics", "")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: The name of a metric is empty. Write one such as 'train.loss'.\n",
    )


def test_a_run_without_any_record_is_told_and_has_its_label(folder):
    for name in "ac":
        write(folder / f"{name}.jsonl", steps())
    write(folder / "b.jsonl", [])
    logs = ["a.jsonl", "b.jsonl", "c.jsonl", "--terminal"]
    assert plot(*logs).stderr == "Warning: b has nothing of what is drawn.\n"
    done = plot(*logs, "--labels", "A", "B", "C")
    assert (done.exit_code, done.stderr) == (0, "Warning: B has nothing of what is drawn.\n")
    assert "• A  x C" in done.stdout
    done = plot(*logs, "--metrics", "train.loss", "--labels", "A", "B", "C")
    assert done.stderr == "Warning: B has no train.loss.\n"
    assert "got 2 for 3 runs (a, b, c)" in plot(*logs, "--labels", "A", "C").stderr


def test_a_prefix_of_several_metrics_is_no_axis_whatever_is_drawn(folder):
    write(folder / "a.jsonl", steps(**{"train.loss": 1.0, "train.lr": 0.1}))
    for drawn in ([], ["--metrics", "train.loss"], ["--metrics", "train.lr"]):
        done = plot("a.jsonl", "--x-key", "train.", *drawn)
        assert done.exit_code == 1
        said = "Error: The axis 'train.' could be train.loss, train.lr. Name one of them.\n"
        assert done.stderr == said


def test_the_number_of_a_record_is_an_axis_where_there_is_no_other(folder):
    write(folder / "a.jsonl", [{"loss": 1.0}, {"loss": 2.0}])
    assert plot("a.jsonl", "--x-key", "record", "--terminal").exit_code == 0
    write(folder / "b.jsonl", steps())
    done = plot("b.jsonl", "--x-key", "record")
    assert done.exit_code == 1
    said = "The axis 'record' is only there where no record has a step, an epoch or a time."
    assert said in done.stderr


def test_values_without_the_axis_are_told(folder):
    places = [{"step": 1}, {"step": 2}, {}]
    write(folder / "a.jsonl", [{**place, "metrics": {"loss": 1.0}} for place in places])
    done = plot("a.jsonl")
    said = "Warning: Some values of loss of a are not drawn: they have no 'step'.\n"
    assert (done.exit_code, done.stderr) == (0, said)


def test_what_matplotlib_repeats_is_said_once_in_a_sentence(folder):
    write(folder / "a.jsonl", steps(**{"训练.损失": 1.0}))
    done = plot("a.jsonl", "--title", "失训")
    assert done.stderr == (
        "Warning: The font DejaVu Sans has no 训练损失: the picture has boxes in their place.\n"
    )
    write(folder / "b.jsonl", steps(**dict.fromkeys(("loss", "lr", "grad_norm"), 1.0)))
    done = plot("b.jsonl", "--size", "1x1")
    assert done.stderr == (
        "Warning: The picture is too small for what it shows, and parts of it overlap. Make it "
        "larger, or draw less.\n"
    )


def test_the_name_of_a_picture_is_printed_without_control_characters(folder):
    write(folder / "a.jsonl", steps())
    assert plot("a.jsonl", "--out", f"{EVIL}.svg").stdout == "Wrote a\\x1b]0;pwned\\x07b.svg\n"
    done = plot("a.jsonl", "--out", f"{EVIL}.jpg")
    assert (done.exit_code, "\x1b" in done.stderr, "pwned" in done.stderr) == (2, False, True)


def test_a_metric_is_the_axis_under_its_other_names(folder):
    write(folder / "a.jsonl", steps())
    done = plot("a.jsonl", "--metrics", "train.loss", "--x-key", "train.lr", "--terminal")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1].strip() == "training.lr"
    done = plot("a.jsonl", "--metrics", "train.loss", "--x-key", "training.lrr")
    assert done.stderr.endswith("Did you mean 'training.lr'?\n")


def test_a_log_without_the_metric_is_told_and_keeps_its_label(folder):
    for name in "ac":
        write(folder / f"{name}.jsonl", steps(loss=1.0, lr=1.0))
    write(folder / "b.jsonl", steps(lr=1.0))
    logs = ["a.jsonl", "b.jsonl", "c.jsonl", "--metrics", "loss", "lr"]
    done = plot(*logs, "--labels", "A", "B", "C", "--terminal")
    assert done.stderr == "Warning: B has no loss.\n"
    assert "loss  • A  x C" in done.stdout
    assert plot(*logs).stderr == "Warning: b has no loss.\n"
    for wrong in (["A"], ["A", "C"]):
        done = plot(*logs[:-1], "--labels", *wrong)
        assert done.exit_code == 1
        assert f"got {len(wrong)} for 3 runs (a, b, c)" in done.stderr


def test_labels_are_those_of_their_runs_where_one_has_no_record_of_the_metric(folder):
    for name, event in (("a", "eval"), ("b", "step"), ("c", "eval")):
        records = [{"event": event, "measurements": {"x": 1.0}, "metadata": {"step": 1}}]
        write(folder / f"{name}.jsonl", records)
    logs = ["a.jsonl", "b.jsonl", "c.jsonl", "--metrics", "eval.x"]
    done = plot(*logs, "--labels", "A", "B", "C", "--terminal")
    assert (done.exit_code, done.stderr) == (0, "Warning: B has no eval.x.\n")
    assert "eval.x  • A  x C" in done.stdout
    done = plot(*logs, "--labels", "A", "C")
    assert "got 2 for 3 runs (a, b, c)" in done.stderr


def test_the_list_has_the_named_metrics_with_all_their_digits(folder):
    late = [{"step": 1234567 + n, "metrics": {"loss": 0.5, "tokens": 10**9}} for n in range(2)]
    write(folder / "a.jsonl", [*late, {"metrics": {"loss": "NaN"}}])
    done = plot("a.jsonl", "--list")
    assert [line.split() for line in done.output.splitlines()[1:]] == [
        ["loss", "3", "NaN"],
        ["tokens", "2", "1,000,000,000", "1,234,568"],
    ]
    named = plot("a.jsonl", "--list", "--metrics", "tok*")
    assert [line.split()[0] for line in named.output.splitlines()] == ["metric", "tokens"]


def test_more_cells_than_a_frame_may_have_do_not_hide_what_is_wrong(folder, monkeypatch):
    monkeypatch.setattr("telemetry.viewer.frames.frame.MOST_CELLS", 3)
    write(folder / "a.jsonl", steps())
    assert plot("a.jsonl", "--list").exit_code == 0
    done = plot("a.jsonl", "--metrics", "train.lss")
    assert done.stderr.startswith("Error: There is no metric 'train.lss'. Nearest: train.loss")


def test_records_without_a_step_an_epoch_or_a_time_are_counted(folder):
    write(folder / "a.jsonl", [{"loss": 1.0}, {"loss": 2.0}])
    done = plot("a.jsonl", "--terminal")
    assert (done.exit_code, done.output.splitlines()[-1].strip()) == (0, "record")


def test_characters_say_that_they_show_no_band(folder):
    for seed in "12":
        write(folder / f"seed{seed}.jsonl", steps(loss=float(seed)))
    done = plot("seed1.jsonl", "seed2.jsonl", "--band", "std", "--terminal")
    assert (done.exit_code, done.stderr.count("without its band")) == (0, 1)


def test_of_a_directory_with_several_logs_it_is_said_which_one_is_drawn(folder):
    (folder / "runs").mkdir()
    for second, name in enumerate("ab"):
        os.utime(write(folder / "runs" / f"{name}.jsonl", steps()), (second + 1, second + 1))
    said = "runs/b.jsonl is the newest of 2 logs in runs. Others are drawn by name.\n"
    assert plot("runs").stderr == said
    assert plot("runs/b.jsonl").stderr == ""
    (folder / "runs" / "a.jsonl").unlink()
    assert plot("runs").stderr == ""


def test_values_after_an_equals_sign_can_be_several(folder):
    write(folder / "a.jsonl", steps())
    done = plot("a.jsonl", "--list", "--metrics=train.loss", "training.lr")
    assert [line.split()[0] for line in done.output.splitlines()[1:]] == [
        "train.loss",
        "training.lr",
    ]


def test_a_followed_log_takes_a_tenth_of_the_processor_and_is_looked_at_each_ten_seconds():
    assert pause_after(30.0, first=True) == 1.0
    assert pause_after(0.01, first=False) == 1.0
    assert pause_after(0.5, first=False) == 5.0
    assert pause_after(30.0, first=False) == 10.0
