"""``telemetry replay --clipper``: what clippers would have done, from recorded norms."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import clipping
import handlers
import telemetry
from telemetry.cli.replay.clip_candidates import candidate_of
from telemetry.cli.replay.clipper_specs import Named
from telemetry.viewer.clips.clippings import choose_records
from telemetry.viewer.clips.comparison import compare
from telemetry.viewer.clips.plans import Asked, make_plans, read_plan
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs
from telemetry.viewer.logs.sources import find_logs

EAGER = {"warmup_steps": 3, "min_history": 2}
WINDOW = "autoclip:mode=percentile,percentile=50,history=window,warmup_steps=0,min_history=1"


def keys_of(clipper):
    return [group["key"] for group in clipper["groups"]]


ALIKE = [
    ("autoclip:window_size=64", clipping.AutoClip, {"window_size": 64}),
    (
        "autoclip:percentile=80",
        clipping.AutoClip,
        {"mode": "percentile", "percentile": 80},
    ),
    ("zscore:scope=per_param,zmax=2", clipping.ZScoreClip, {"scope": "per_param", "zmax": 2}),
    ("agc:clipping=1,scope=per_param", clipping.AGC, {"clipping": 1, "scope": "per_param"}),
    ("agc:clipping=1,scope=per_unit", clipping.AGC, {"clipping": 1, "scope": "per_unit"}),
    ("agc:clipping=.5,scope=global", clipping.AGC, {"clipping": 0.5, "scope": "global"}),
]


@pytest.mark.parametrize(("text", "kind", "options"), ALIKE, ids=[text for text, _, _ in ALIKE])
def test_the_clipper_that_recorded_a_run_decides_again_as_it_did(
    kit, tmp_path, text, kind, options
):
    path = kit.record(tmp_path / "run.jsonl", [kind(**options, **EAGER)])

    (run,) = kit.replay_json(path, "--clipper", f"{text},warmup_steps=3,min_history=2")

    recorded, replayed = run["clippers"]
    assert (recorded.pop("recorded"), replayed.pop("recorded")) == (True, False)
    assert recorded.pop("clipper") != replayed.pop("clipper")
    assert replayed == recorded
    assert 0 < recorded["clipped"] < recorded["steps"] == 120
    assert recorded["nonfinite"] == 3


@pytest.mark.parametrize(("text", "kind", "options"), ALIKE, ids=[text for text, _, _ in ALIKE])
def test_it_does_so_step_by_step(kit, tmp_path, text, kind, options):
    kit.record(tmp_path / "run.jsonl", [kind(**options, **EAGER)])
    candidate = candidate_of(Named(text, kind(**options, **EAGER), ()))
    with Records(find_logs(tmp_path)) as records:
        runs = find_runs(records)
        choose_records(records, (), lambda value, text: False)
        (plan,), without = make_plans(records, runs, [candidate], Asked())
        comparison = compare(plan, read_plan(records, plan), lambda: None)
    assert without == {}
    recorded, replayed = comparison.outcomes
    np.testing.assert_array_equal(replayed.tally.thresholds, recorded.tally.thresholds)
    np.testing.assert_array_equal(replayed.tally.scales, recorded.tally.scales)
    assert replayed.groups.keys() == recorded.groups.keys()
    for key, tally in recorded.groups.items():
        np.testing.assert_array_equal(replayed.groups[key].thresholds, tally.thresholds)
        np.testing.assert_array_equal(replayed.groups[key].scales, tally.scales)


def test_a_run_of_torch_too(kit, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clipper = clipping.AutoClip(mode="percentile", percentile=60, **EAGER)
    path = tmp_path / "run.jsonl"
    with handlers.attach("jsonl", path=path), clipping.clip_context(model, optimizer, clipper):
        for step in range(1, 41):
            optimizer.zero_grad()
            model(torch.randn(16, 8)).square().mean().backward()
            with telemetry.context(step=step):
                optimizer.step()
    options = "mode=percentile,percentile=60,warmup_steps=3,min_history=2"
    (run,) = kit.replay_json(path, "--clipper", f"autoclip:{options}")
    recorded, replayed = run["clippers"]
    assert replayed["clipped"] == recorded["clipped"] > 0
    for name in ("threshold_mean", "threshold_median", "threshold_last", "scale_mean", "scale_min"):
        assert replayed[name] == pytest.approx(recorded[name], rel=1e-6), name


def test_a_table_with_numbers_worked_out_by_hand(kit, tmp_path):
    path = kit.lines(
        tmp_path / "a.jsonl",
        kit.stop_of(10, 1.0, "Infinity", 1.0),
        kit.stop_of(20, 4.0, 2.0, 0.5),
        kit.stop_of(30, "NaN", 2.0, 0.0),
        kit.stop_of(40, 4.0, 3.0, 0.75),
    )
    # The medians of 1, of 1 and 4, and of 1, 4 and 4: 1, 2.5, 4. NaN leaves it at 2.5.
    first, *table = kit.replay(path, "--clipper", WINDOW).stdout.splitlines()[:5]
    assert first == "a: 4 norms of smartclip.grad_norm, steps 10 to 40"
    assert [re.split(r"\s{2,}", line.strip()) for line in table] == [
        ["threshold", "scale", "first", "not"],
        ["clipper", "clipped", "rate", "mean", "median", "last", "mean", "smallest", "clipped",
         "finite"],
        ["recorded: zscore", "2", "50.0%", "2.333", "2", "3", "0.75", "0.5", "20", "1"],
        [WINDOW, "1", "25.0%", "2.5", "2.5", "4", "0.875", "0.625", "20", "1"],
    ]  # fmt: skip


def test_what_a_recorded_norm_cannot_say_is_said(kit, tmp_path):
    clipped = kit.lines(tmp_path / "clipped.jsonl", kit.stop_of(1, 1.0, 2.0, 1.0))
    assert "a training that zscore clipped." in kit.replay(clipped, "--clipper", "zscore").stdout
    watched = kit.lines(tmp_path / "watched.jsonl", kit.stop_of(1, 1.0, 2.0, 1.0, dry_run=True))
    assert (
        "a training that zscore only watched." in kit.replay(watched, "--clipper", "zscore").stdout
    )
    trained = kit.lines(tmp_path / "trained.jsonl", kit.step_of(1, 1.0))
    assert (
        "does not tell whether training.grad_norm was measured before clipping"
        in kit.replay(trained, "--clipper", "zscore").stdout
    )


def test_a_later_attempt_takes_the_place_of_an_earlier_one(kit, tmp_path):
    first = [kit.step_of(n, 1.0, run_id="r", attempt=1) for n in range(1, 7)]
    second = [kit.step_of(n, 5.0, run_id="r", attempt=2) for n in range(4, 9)]
    path = kit.lines(tmp_path / "a.jsonl", *first, *second)
    (run,) = kit.replay_json(path, "--clipper", WINDOW)
    (told,) = run["clippers"]
    # 1, 1, 1, then 5 five times: medians 1, 1, 1, 1, 1, 3, 5, 5.
    assert told["steps"] == 8
    assert told["threshold_mean"] == (5 * 1 + 3 + 5 + 5) / 8
    assert (told["clipped"], told["first_clipped"]) == (3, 4.0)


def test_an_attempt_in_another_file_continues_the_run(kit, tmp_path):
    later = kit.lines(
        tmp_path / "a.jsonl", *(kit.step_of(n, 5.0, run_id="r", attempt=2) for n in (3, 4))
    )
    first = kit.lines(
        tmp_path / "b.jsonl", *(kit.step_of(n, 1.0, run_id="r", attempt=1) for n in (1, 2, 3))
    )
    (run,) = kit.replay_json(later, first, "--clipper", WINDOW)
    assert (run["axis"], run["clippers"][0]["steps"]) == ("step", 4)


def test_several_runs_are_each_by_itself(kit, tmp_path):
    kit.lines(tmp_path / "a.jsonl", *(kit.step_of(n, float(n)) for n in (1, 2, 3)))
    mixed = [
        kit.step_of(n, norm, run_id=run) for n in (1, 2) for run, norm in (("r", 1.0), ("s", 7.0))
    ]
    kit.lines(tmp_path / "b.jsonl", *mixed)
    runs = kit.replay_json(tmp_path, "--clipper", WINDOW)
    told = {run["run"]: run["clippers"][0] for run in runs}
    assert {name: one["threshold_last"] for name, one in told.items()} == {
        "a": 2.0, "r": 1.0, "s": 7.0,
    }  # fmt: skip
    assert [one["steps"] for one in told.values()] == [3, 2, 2]


def test_the_clipper_that_clipped_is_preferred_to_one_that_watched(kit, tmp_path):
    watching = clipping.AutoClip(dry_run=True)
    path = kit.record(tmp_path / "run.jsonl", [watching, clipping.AGC(scope="per_param")], steps=5)
    (run,) = kit.replay_json(path, "--clipper", "zscore")
    assert [one["clipper"] for one in run["clippers"]] == ["recorded: agc", "zscore"]


def test_one_that_watched_is_not_mixed_with_one_of_its_kind_that_clipped(kit, tmp_path):
    watching = clipping.AutoClip(dry_run=True)
    path = kit.record(tmp_path / "run.jsonl", [watching, clipping.AutoClip()], steps=5)
    (run,) = kit.replay_json(path, "--clipper", "zscore")
    assert [(one["clipper"], one["steps"]) for one in run["clippers"]] == [
        ("recorded: autoclip", 5), ("zscore", 5),
    ]  # fmt: skip


def test_each_clipper_gets_the_groups_of_its_scope(kit, tmp_path):
    watching = clipping.AGC(scope="per_unit", dry_run=True)
    path = kit.record(tmp_path / "run.jsonl", [clipping.ZScoreClip(scope="per_param"), watching], 5)
    found = kit.replay_json(
        path, "--clipper", "agc:scope=per_unit", "--clipper", "autoclip:scope=per_param"
    )
    assert [[one["clipper"] for one in run["clippers"]] for run in found] == [
        ["recorded: agc, dry run", "agc:scope=per_unit"],
        ["recorded: zscore", "autoclip:scope=per_param"],
    ]
    assert keys_of(found[0]["clippers"][1]) == [["param", "0"], ["param", "2"]]
    assert keys_of(found[1]["clippers"][1]) == [["param", "0"], ["param", "1"], ["param", "2"]]
    assert not any("also has" in note for run in found for note in run["notes"])


def test_a_metric_of_another_program_can_be_named(kit, tmp_path):
    path = kit.lines(
        tmp_path / "a.jsonl",
        *({"step": n, "metrics": {"opt/norm": n, "loss": 2.0}} for n in (1, 2, 3)),
    )
    (run,) = kit.replay_json(path, "--clipper", WINDOW, "--metric", "opt/norm")
    assert (run["metric"], run["clippers"][0]["threshold_last"]) == ("opt.norm", 2.0)
    said = kit.replay(path, "--clipper", "zscore", exit_code=1).stderr
    assert "There are no gradient norms in a" in said
    assert "Name one with --metric: opt.norm." in said
    said = kit.replay(path, "--clipper", "zscore", "--metric", "opt.nrm", exit_code=1).stderr
    assert "There is no metric 'opt.nrm'. Nearest: opt.norm." in said


def test_policy_raise_says_where_the_training_would_have_ended(kit, tmp_path):
    norms = [kit.step_of(n, "NaN" if n == 3 else 1.0) for n in range(1, 6)]
    path = kit.lines(tmp_path / "a.jsonl", *norms)
    options = ("--clipper", "zscore:on_nonfinite=raise", "--clipper", "zscore")
    (run,) = kit.replay_json(path, *options)
    raising, skipping = run["clippers"]
    assert (raising["steps"], raising["ended"]) == (2, 3.0)
    assert (skipping["steps"], skipping["nonfinite"], skipping["ended"]) == (5, 1, None)
    assert "would have ended the training at step 3" in kit.replay(path, *options).stdout


def test_norms_of_the_same_step_are_told(kit, tmp_path):
    path = kit.lines(tmp_path / "a.jsonl", *(kit.step_of(1 + n // 2, 1.0) for n in range(6)))
    assert "3 of 6 norms have the step of the one before" in kit.replay(
        path, "--clipper", "zscore"
    ).stdout  # fmt: skip


def test_clippers_that_a_context_tells_apart_can_be_chosen(kit, tmp_path):
    """Several of one kind on one run, as the documentation of dry runs has it."""
    path = tmp_path / "run.jsonl"
    trials = {zmax: clipping.ZScoreClip(zmax=zmax, dry_run=True, **EAGER) for zmax in (0.5, 3.0)}
    with handlers.attach("jsonl", path=path):
        for step in range(1, 41):
            for zmax, trial in trials.items():
                with telemetry.context(step=step, zmax=zmax, trial=f"z {zmax}"):
                    norm = float(zmax + step % 9)
                    clipping.numpy.apply_grads([np.array([norm])], [np.ones(1)], trial)
    for where in ("zmax=3", "trial=z 3.0"):
        (run,) = kit.replay_json(
            path, "--clipper", "zscore:zmax=3,warmup_steps=3,min_history=2", "--where", where
        )
        recorded, replayed = run["clippers"]
        assert replayed["threshold_last"] == recorded["threshold_last"]
        assert (replayed["steps"], run["notes"][0].startswith("40 of 80")) == (40, False)
    (both,) = kit.replay_json(path, "--clipper", "zscore")
    assert both["notes"][0].startswith("40 of 80 norms have the step of the one before.")
    said = kit.replay(path, "--clipper", "zscore", "--where", "zmax=9", exit_code=1).stderr
    assert said == "Error: No record with zmax=9 has a gradient norm.\n"


@pytest.mark.parametrize("steps", [(5, 4, 9), (5, 5, 5), (None, 2, 3)])
def test_steps_that_repeat_go_back_or_are_missing_are_counted_instead(kit, tmp_path, steps):
    records = [kit.step_of(step, norm) for step, norm in zip(steps, (5.0, 4.0, 9.0), strict=True)]
    path = kit.lines(tmp_path / "a.jsonl", *records)
    (run,) = kit.replay_json(path, "--clipper", WINDOW)
    assert (run["axis"], run["clippers"][0]["first_clipped"]) == ("clipping", 3.0)


def test_many_groups_are_cut_short_in_the_table_and_whole_in_json(kit, tmp_path):
    """The group of number n jumps in n of the steps, and is then clipped."""
    weights = [np.ones(1) for _ in range(14)]
    path = tmp_path / "run.jsonl"
    with handlers.attach("jsonl", path=path):
        for step in range(1, 51):
            grads = [np.array([50.0 if 30 < step <= 30 + n else 1.0]) for n in range(14)]
            with telemetry.context(step=step):
                clipping.numpy.apply_grads(grads, weights, clipping.AutoClip(scope="per_param"))
    median = "autoclip:percentile=50,history=window,scope=per_param,warmup_steps=0,min_history=1"
    options = ("--clipper", median)
    table = kit.replay(path, *options).stdout.partition("\nautoclip:")[2]
    assert "  and 4 more groups (--json)" in table
    shown = [line.split()[:2] for line in table.splitlines() if line.startswith("  param/")]
    assert shown == [[f"param/{n}", str(n)] for n in range(13, 3, -1)]
    assert len(kit.replay_json(path, *options)[0]["clippers"][1]["groups"]) == 14


def test_an_idle_option_is_told_beside_the_output(kit, tmp_path):
    path = kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
    result = kit.replay(path, "--clipper", "autoclip:mode=auto,percentile=95", "--json")
    assert "percentile changes nothing with mode=auto" in result.stderr
    assert json.loads(result.stdout)


def test_names_with_control_characters_cannot_command_the_terminal(kit, tmp_path):
    bad = "\x1b[2J"
    path = kit.lines(tmp_path / f"a{bad}.jsonl", kit.stop_of(1, 1.0, 2.0, 1.0, algo=bad, scope=bad))
    kit.lines(tmp_path / f"b{bad}.jsonl", {"step": 1, "metrics": {f"{bad}.grad_norm": 1.0}})
    out = tmp_path / "a.png"
    result = kit.replay(path, tmp_path, "--clipper", "zscore", "--out", out)
    assert "\x1b" not in result.output.replace(str(out), "")


def test_paths_are_given_as_the_shell_gives_them(kit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kit.lines(Path("a.jsonl"), kit.step_of(1, 1.0))
    assert kit.replay("*.jsonl", "--clipper", "zscore").stdout.startswith("a: 1 norm of")
