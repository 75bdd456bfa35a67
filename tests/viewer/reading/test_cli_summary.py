"""``telemetry summary``, as its user calls it."""

import json
import math
import os
import pty
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from telemetry.cli import commands

CLIPPED = {"grad_norm": 4.0, "scale": 0.5, "groups_clipped": 1}
UNCLIPPED = {"grad_norm": 1.0, "scale": 1.0, "groups_clipped": 0}
SUMMARY = [sys.executable, "-W", "error", "-m", "telemetry", "summary"]


@pytest.fixture(autouse=True)
def _zone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def summary():
    return lambda *arguments: CliRunner().invoke(commands, ["summary", *map(str, arguments)])


@pytest.fixture
def failed(write, step_of):
    """A run in which much went wrong."""
    span = {"span_id": "a", "parent_id": None, "trace_id": "a"}
    run = {"workflow": "w", "telemetry_span_context": span}
    records = [
        {"event": "workflow.run.start", "measurements": {}, "metadata": run},
        step_of(1, 2.5, total_steps=12_000),
        step_of(2, 1.25, total_steps=12_000),
        step_of(2000, float("nan"), total_steps=12_000),
        {"event": "smartclip.clip.stop", "measurements": CLIPPED},
        {"event": "smartclip.clip.stop", "measurements": UNCLIPPED},
    ]
    records[3]["timestamp"] = None
    rule = {"rule": "kl", "severity": "critical", "message": "KL\x1b[31m is high"}
    records.append({"event": "alert.raised", "measurements": {"value": 1}, "metadata": rule})
    lost = {"handler_id": "wandb", "policy": "drop_oldest"}
    records.append(
        {"event": "telemetry.handler.overflow", "measurements": {"dropped": 5000}, "metadata": lost}
    )
    end = {"duration": 93 * 10**9}
    error = {**run, "error": "ValueError: no"}
    records.append({"event": "workflow.run.exception", "measurements": end, "metadata": error})
    return write("failed.jsonl", [*records, b"garbage"])


def test_one_run_is_told_in_full(summary, failed):
    result = summary("failed.jsonl")
    assert result.exit_code == 0
    lines = [re.sub(r"\d+:\d+:\d+", "...", line) for line in result.stdout.splitlines()]
    assert lines == [
        "run        failed",
        "files      failed.jsonl",
        "status     failed: ValueError: no",
        "time       1 min 33 s, 2026-11-21 ... to 2026-11-21 ...",
        "steps      2,000 of 12,000",
        "speed      1 step a second",
        "clipped    50 % of 2 times, mean scale 0.75",
        "alerts     kl (critical) once, still raised: KL\\x1b[31m is high",
        "failures   span workflow.run once: ValueError: no",
        "drops      wandb lost 5,000 (drop_oldest)",
        "bad lines  1 that are no records",
        "",
        "metric               last  best",
        "training.loss         NaN  1.25  lowest, step 2",
        "smartclip.grad_norm     1",
        "smartclip.scale         1",
    ]
    assert result.stderr.startswith("Warning: failed.jsonl: no record in line 10 (")


def test_epochs_are_told_without_steps_and_beside_them(summary, write):
    write("a.jsonl", [{"epoch": epoch, "val_loss": 1 / epoch} for epoch in (1, 2, 3)])
    assert summary("a.jsonl").stdout.splitlines()[3] == "steps   epoch 3"
    write("b.jsonl", [{"step": 7, "epoch": 2, "loss": 1}])
    assert summary("b.jsonl").stdout.splitlines()[3] == "steps   7, epoch 2"


def test_dry_runs_are_told_as_such_where_there_are_no_others(summary, write):
    def stop(measured, **told):
        return {"event": "smartclip.clip.stop", "measurements": measured, "metadata": told}

    dry = [stop(each, dry_run=True) for each in (CLIPPED, CLIPPED, CLIPPED, UNCLIPPED)]
    write("dry.jsonl", dry)
    said = "would clip  75 % of 4 times, in a dry run, mean scale 0.625"
    assert said in summary("dry.jsonl").stdout
    write("both.jsonl", [*dry, stop(UNCLIPPED, dry_run=False), stop(CLIPPED)])
    assert "clipped  50 % of 2 times, mean scale 0.75\n" in summary("both.jsonl").stdout
    table = summary("both.jsonl", "dry.jsonl", "--metrics", "smartclip.scale").stdout
    assert [line.split()[1:-1] for line in table.splitlines()[-2:]] == [
        ["50", "%"],
        ["75", "%", "(dry", "run)"],
    ]


def test_of_several_runs_each_is_a_row_that_fits(summary, failed, write, step_of):
    write("a/good.jsonl", [step_of(1, 3.0), step_of(2, 2.0), {"test": {"accuracy": 0.5}}])
    result = summary("failed.jsonl", "a", "--metrics", "training.loss")
    assert result.stdout.splitlines() == [
        "run     status         time            steps  trouble",
        "failed  failed   1 min 33 s  2,000 of 12,000  1 alert, 1 failure, 5,000 drops, 1",
        "                                              bad line",
        "good    unknown         1 s                2",
        "",
        "run     clipped  training.loss",
        "failed     50 %     NaN (1.25)",
        "good                     2 (2)",
        "In brackets: the best value, of a loss the lowest.",
    ]


def test_metrics_without_room_are_named(summary, write):
    for name in ("a", "b"):
        write(f"{name}.jsonl", [{f"a_rather_long_name_{n}.loss": n for n in range(6)}])
    lines = summary("a.jsonl", "b.jsonl").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "No room for a_rather_long_name_2.loss, " in " ".join(lines)


def test_as_json_it_is_a_list_for_one_run_as_well(summary, failed):
    (run,) = json.loads(summary(failed, "--json").stdout)
    assert run["run"] == "failed"
    assert run["course"]["status"] == "failed"
    assert run["course"]["duration_s"] == 93
    assert run["pace"]["total_steps"] == 12_000
    assert run["clipping"] == {
        "clips": 2,
        "clipped": 1,
        "skipped": 0,
        "rate": 0.5,
        "scale_mean": 0.75,
        "dry_run": False,
    }
    assert run["metrics"][0] == {
        "name": "training.loss",
        "values": 3,
        "last": "NaN",
        "last_step": 2000,
        "best": 1.25,
        "best_step": 2,
        "goal": "lowest",
    }
    assert [alert["still"] for alert in run["alerts"]] == [True]
    assert run["drops"] == [{"handler": "wandb", "policy": "drop_oldest", "dropped": 5000}]
    assert run["bad_lines"] == 1


def test_by_default_it_is_the_folder_runs_or_this_one(summary, write, step_of):
    write("here.jsonl", [step_of(1, 1.0)])
    assert "files   here.jsonl" in summary().stdout
    write("runs/x/metrics.jsonl", [step_of(1, 1.0)])
    assert "files   runs/x/metrics.jsonl" in summary().stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.jsonl"], "There is no file 'nope.jsonl'."),
        (["empty"], "The directory 'empty' has no log: no file ends in .jsonl or .jsonl.gz."),
        (["empty.jsonl"], "There is no record in empty.jsonl."),
        (["a.jsonl", "--metrics", "lss"], "There is no metric 'lss'. Nearest: loss."),
    ],
)
def test_what_is_missing_is_said(summary, write, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    write("a.jsonl", [{"loss": 1}])
    result = summary(*arguments)
    assert result.exit_code == 1
    assert result.stderr == f"Error: {message}\n"


def test_on_a_narrow_terminal_what_went_wrong_has_lines_of_its_own(failed, write, step_of):
    write("a/good.jsonl", [step_of(1, 3.0)])
    runner = CliRunner(env={"COLUMNS": "50"})
    lines = runner.invoke(commands, ["summary", "failed.jsonl", "a"]).stdout.splitlines()
    assert lines[:6] == [
        "run     status         time            steps",
        "failed  failed   1 min 33 s  2,000 of 12,000",
        "good    unknown         0 s                1",
        "failed: 1 alert, 1 failure, 5,000 drops, 1 bad",
        "line",
        "",
    ]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_files_without_records_are_said_beside_those_with_some(summary, write, form):
    write("good.jsonl", [{"loss": 1}])
    write("empty.jsonl", [])
    both = summary("good.jsonl", "empty.jsonl", *form)
    assert (both.exit_code, both.stderr) == (0, "Warning: There is no record in empty.jsonl.\n")
    assert "good" in both.stdout
    alone = summary("empty.jsonl", *form)
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert alone.stderr == "Error: There is no record in empty.jsonl.\n"


def test_the_name_of_a_file_does_nothing_to_a_terminal(summary, write):
    write("\x1b[31m.jsonl", [])
    assert summary("\x1b[31m.jsonl").stderr == "Error: There is no record in \\x1b[31m.jsonl.\n"


@pytest.mark.parametrize("duration", ["NaN", "Infinity"])
def test_a_duration_that_is_no_number_is_left_out(summary, write, duration):
    span = {"telemetry_span_context": {"span_id": "a"}}
    end = {"event": "workflow.run.stop", "measurements": {"duration": duration}, "metadata": span}
    write("a.jsonl", [end])
    result = summary("a.jsonl")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "status  finished" in result.stdout
    assert "time" not in result.stdout


def test_a_table_of_many_metrics_is_not_made_for_each(summary, write, monkeypatch):
    from telemetry.cli.summary import table as summary_table

    for name in ("a", "b"):
        write(f"{name}.jsonl", [{f"m{number}.loss": 1 for number in range(500)}])
    made = []
    whole = summary_table._values
    monkeypatch.setattr(summary_table, "_values", lambda *of: made.append(of) or whole(*of))
    result = summary("a.jsonl", "b.jsonl", "--metrics", "*")
    said = " ".join(result.stdout.split())  # 8 of 9 characters each beside "run"
    assert said.endswith("m12.loss and 487 more. Name what you want with --metrics.")
    assert len(made) < 20  # as many as there is room for, and not 500


def test_a_file_without_metrics_is_summed_up(summary, write):
    write("a.jsonl", [{"event": "x", "measurements": {}, "metadata": {}}])
    assert summary("a.jsonl").stdout.splitlines()[-2:] == ["", "It has no metrics."]


def test_who_reads_the_first_line_only_gets_it(write, step_of, tmp_path):
    write("a.jsonl", [step_of(1, 1.0)])
    shell = f"{' '.join(SUMMARY)} a.jsonl --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert (done.stdout, done.stderr) == ("[\n0\n", "")


def sent_to_a_terminal(folder, *arguments):
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*SUMMARY, *arguments],
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color"},
    ):
        os.close(slave)
        shown = b""
        with os.fdopen(master, "rb", buffering=0) as terminal:
            try:
                while piece := terminal.read(1 << 16):
                    shown += piece
            except OSError:
                pass  # the terminal's end on Linux
    return shown


def test_on_a_terminal_it_is_coloured(failed, tmp_path):
    shown = sent_to_a_terminal(tmp_path, "failed.jsonl")
    assert b"\x1b[31mfailed: ValueError: no" in shown
    assert b"KL\\x1b[31m is high" in shown


def test_json_on_a_terminal_has_no_control_characters(write, tmp_path):
    write(
        "a.jsonl", [{"event": "alert.raised", "measurements": {}, "metadata": {"rule": "\x9b1m"}}]
    )
    shown = sent_to_a_terminal(tmp_path, "a.jsonl", "--json").decode()
    assert json.loads(shown)[0]["alerts"][0]["rule"] == "\x9b1m"
    assert "\x9b" not in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (2e-05, "2e-05"),
        (999.5, "999.5"),
        (1000.4, "1,000"),
        (15000000.0, "1.5e+07"),
        (-3.14159, "-3.142"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (12, "12"),
    ],
)
def test_numbers_are_written_as_a_person_does(value, text):
    from telemetry.cli.summary.words import number

    assert number(float(value)) == text
