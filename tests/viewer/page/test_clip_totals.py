"""What real clippers did, as the summary, the replay and the page tell it alike."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

import clipping
import handlers
import telemetry
from telemetry.cli import commands
from telemetry.viewer.summaries.summary import summarize

from .conftest import line
from .test_answers import Asked

SPIKES, ACCIDENTS, STEPS = (20, 35, 50), (10, 30), 60


def record(path, *options):
    """A run whose norms are about 1, with spikes that are clipped and gradients that are NaN."""
    clippers = [
        clipping.ZScoreClip(zmax=6, warmup_steps=5, min_history=5, **given) for given in options
    ]
    weights = [np.ones(4)]
    with handlers.attach("jsonl", path=path), telemetry.workflow_run("test"):
        for step in range(1, STEPS + 1):
            norm = 100.0 if step in SPIKES else 1 + 0.1 * (step % 2)
            grad = np.full(4, norm / 2)
            grad[0] = math.nan if step in ACCIDENTS else grad[0]
            with telemetry.context(step=step):
                for clipper in clippers:
                    clipping.numpy.apply_grads([grad.copy()], weights, clipper)
    return path


def told_of(path):
    """How many clippings there were, how many clipped, whether in dry runs, the mean scale."""
    (run,) = summarize(path)
    totals = run.clipping
    (page,) = Asked(path)("clipping")["totals"]
    arguments = ["replay", str(path), "--clipper", "zscore", "--json"]
    (replay,) = json.loads(CliRunner().invoke(commands, arguments).stdout)
    recorded = next(one for one in replay["clippers"] if one["recorded"])
    of_page = (page["clippings"], page["clipped"], page["dry_run"])
    dry_run = recorded["clipper"].endswith("dry run")
    assert (totals.clips, totals.clipped, totals.dry_run) == of_page
    assert (recorded["steps"], recorded["clipped"], dry_run) == of_page
    assert recorded["clip_rate"] == totals.rate
    assert recorded["scale_mean"] == pytest.approx(totals.scale_mean)
    assert (recorded["nonfinite"], totals.skipped) == (len(ACCIDENTS), len(ACCIDENTS))
    return (*of_page, totals.scale_mean)


def scale_mean(path):
    """By the definition: of the factors of all steps whose norm is finite."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    stops = [each for each in records if each["event"] == "smartclip.clip.stop"]
    assert sum(stop["measurements"]["groups_clipped"] for stop in stops) > len(SPIKES)
    scales = [
        stop["measurements"]["scale"]
        for stop in stops
        if stop["metadata"]["step"] not in ACCIDENTS and not stop["metadata"]["dry_run"]
    ]
    assert len(scales) == STEPS - len(ACCIDENTS)
    return np.mean(scales)


def test_steps_that_were_skipped_were_not_clipped(tmp_path):
    path = record(tmp_path / "log.jsonl", {})
    mean = pytest.approx(scale_mean(path))
    assert told_of(path) == (STEPS, len(SPIKES), False, mean)


def test_dry_runs_do_not_count_beside_others(tmp_path):
    path = record(tmp_path / "log.jsonl", {}, {"dry_run": True})
    mean = pytest.approx(scale_mean(path))
    assert told_of(path) == (STEPS, len(SPIKES), False, mean)


def test_dry_runs_count_where_there_are_no_others(tmp_path):
    path = record(tmp_path / "log.jsonl", {"dry_run": True})
    assert told_of(path)[:3] == (STEPS, len(SPIKES), True)
    marks = Asked(path)("clipping")["marks"]
    assert [(list(mark["x"]), mark["dry_run"]) for mark in marks] == [(list(SPIKES), True)]


def test_other_programs_count_by_their_scales(log):
    log("a.jsonl").write(line("smartclip.clip.stop", 1.0, {"grad_norm": 2.0, "scale": 1.0}, step=1))
    rows = [(1.0, 1.0), (2.0, 0.5), ("NaN", 0.0), (8.0, 0.25)]
    for step, (norm, scale) in enumerate(rows, start=1):
        metrics = {"smartclip.grad_norm": norm, "smartclip.scale": scale}
        log("b.jsonl").write(json.dumps({"step": step, "metrics": metrics}) + "\n")
    told = Asked(log("a.jsonl").path, log("b.jsonl").path)("clipping", "window=2")
    assert told["totals"] == [
        {"run": 0, "clippings": 1, "clipped": 0, "dry_run": False},
        {"run": 1, "clippings": 4, "clipped": 2, "dry_run": False},
    ]
    (rate,) = (each for each in told["curves"] if (each["panel"], each["run"]) == ("rate", 1))
    assert list(rate["y"]) == [0.0, 0.5, 0.5, 0.5]
    (_, marks) = told["marks"]
    assert (list(marks["x"]), list(marks["y"]), marks["dry_run"]) == ([2, 4], [2, 8], False)


def test_a_clipping_that_says_no_norm_counts_by_its_scale(log):
    for step, scale in enumerate((1.0, 0.5), start=1):
        log("ours.jsonl").write(line("smartclip.clip.stop", 1.0, {"scale": scale}, step=step))
        other = {"step": step, "metrics": {"smartclip.scale": scale}}
        log("other.jsonl").write(json.dumps(other) + "\n")
    (run,) = summarize(log("ours.jsonl").path)
    assert (run.clipping.clips, run.clipping.clipped, run.clipping.scale_mean) == (2, 1, 0.75)
    told = Asked(log("ours.jsonl").path, log("other.jsonl").path)("clipping")["totals"]
    assert [(each["clippings"], each["clipped"]) for each in told] == [(2, 1), (2, 1)]
