"""``telemetry replay --clipper`` over records that say odd things: one of them ends nothing."""

import json
import resource

import pytest

WINDOW = "autoclip:percentile=50,history=window,warmup_steps=0,min_history=1"


def run_of(kit, path, *more):
    (run,) = kit.replay_json(path, "--clipper", WINDOW, *more)
    return run


@pytest.mark.parametrize("spelling", ["1e400", "9" * 400, f'"{"9" * 400}"', '"Infinity"'])
def test_a_norm_that_no_float_has_room_for_is_infinite(kit, tmp_path, spelling):
    records = [json.dumps(kit.stop_of(n, 1.0, 2.0, 1.0)) for n in (1, 2, 3)]
    records[1] = records[1].replace('"grad_norm": 1.0', f'"grad_norm": {spelling}')
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(records))
    told = run_of(kit, path)
    assert [(one["steps"], one["nonfinite"]) for one in told["clippers"]] == [(3, 1), (3, 1)]


@pytest.mark.parametrize("spelling", ["NaN", "nan", "-nan", "inf"])
def test_a_bare_nan_is_a_norm_that_is_not_finite(kit, tmp_path, spelling):
    records = [kit.stop_of(n, float("nan") if n == 2 else 1.0, 2.0, 1.0) for n in (1, 2, 3)]
    path = kit.lines(tmp_path / "a.jsonl", *records)
    path.write_text(path.read_text().replace("NaN", spelling))
    assert spelling in path.read_text()
    assert [one["nonfinite"] for one in run_of(kit, path)["clippers"]] == [1, 1]


def test_a_group_of_a_norm_without_room_is_infinite_too(kit, tmp_path):
    records = []
    for n in (1, 2, 3):
        norm = "9" * 400 if n == 2 else 1.0
        group = kit.stop_of(n, norm, 2.0, 1.0, scope="per_param", key=["param", "0"])
        group["event"] = "smartclip.clip.group"
        records += [group, kit.stop_of(n, norm, 2.0, 1.0, scope="per_param")]
    path = kit.lines(tmp_path / "a.jsonl", *records)
    (run,) = kit.replay_json(path, "--clipper", f"{WINDOW},scope=per_param")
    assert [one["groups"][0]["nonfinite"] for one in run["clippers"]] == [1, 1]


def test_a_negative_norm_and_a_factor_that_is_none_are_left_out_and_counted(kit, tmp_path):
    path = kit.lines(
        tmp_path / "a.jsonl",
        kit.stop_of(1, 1.0, 2.0, 1.0),
        kit.stop_of(2, -1.0, 2.0, 1.0),
        kit.stop_of(3, 1.0, 2.0, "NaN"),
    )
    run = run_of(kit, path)
    assert [(one["steps"], one["nonfinite"]) for one in run["clippers"]] == [(1, 0), (1, 0)]
    assert run["notes"][0] == "Records left out because their norm or factor is no number: 2."


def test_steps_that_are_infinite_are_counted_instead(kit, tmp_path):
    records = [kit.stop_of("Infinity", 1.0, 2.0, 1.0) for _ in range(3)]
    assert run_of(kit, kit.lines(tmp_path / "a.jsonl", *records))["axis"] == "clipping"


def test_large_steps_are_shown_in_full(kit, tmp_path):
    norms = [(1_234_567, 1.0), (1_234_568, 4.0), (1_234_569, "NaN")]
    path = kit.lines(tmp_path / "a.jsonl", *(kit.step_of(n, norm) for n, norm in norms))
    table = kit.replay(path, "--clipper", f"{WINDOW},on_nonfinite=raise").stdout
    assert table.startswith("a: 3 norms of training.grad_norm, steps 1,234,567 to 1,234,569\n")
    assert "  1,234,568  " in table
    assert "would have ended the training at step 1,234,569, where" in table


def test_a_clipping_of_a_large_step_that_lacks_groups_is_named_in_full(kit, tmp_path):
    path = kit.lines(tmp_path / "a.jsonl", kit.stop_of(1_234_567, 1.0, 2.0, 1.0, scope="per_param"))
    said = kit.replay(path, "--clipper", "zscore:scope=per_param", exit_code=1).stderr
    assert "a: step 1,234,567 has the norms of 0 of 1 groups." in said


@pytest.mark.parametrize("nan_at", [0, 2])
def test_a_clipper_that_would_have_ended_the_training_is_drawn_up_to_there(kit, tmp_path, nan_at):
    norms = [kit.step_of(n, "NaN" if n == nan_at else 1.0 + n) for n in range(5)]
    path, out = kit.lines(tmp_path / "a.jsonl", *norms), tmp_path / "a.png"
    result = kit.replay(path, "--clipper", "zscore:on_nonfinite=raise", "--out", out)
    assert f"would have ended the training at step {nan_at}" in result.stdout
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_history_that_no_memory_has_room_for_is_refused(kit, tmp_path):
    path = kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
    clipper = f"autoclip:window_size={10**13}"
    said = kit.replay(path, "--clipper", clipper, exit_code=1).stderr
    assert said.startswith(f"Error: a: {clipper}: its history does not fit into memory (")
    assert said.endswith("). Make window_size smaller.\n")


def test_attempts_in_the_order_of_their_files_are_put_in_theirs(kit, tmp_path):
    """By name, the file of the second comes first; a norm of 5 is clipped to what was before."""
    kit.lines(
        tmp_path / "a.jsonl",
        *(kit.stop_of(n, 5.0, 1.0, 0.2, run_id="r", attempt=2) for n in (3, 4)),
    )
    kit.lines(
        tmp_path / "b.jsonl",
        *(kit.stop_of(n, 1.0, 1.0, 1.0, run_id="r", attempt=1) for n in (1, 2, 3)),
    )
    run = run_of(kit, tmp_path)
    recorded, replayed = run["clippers"]
    assert (run["axis"], recorded["steps"], recorded["first_clipped"]) == ("step", 4, 3.0)
    # The medians of 1, of 1 and 1, of 1, 1 and 5, and of 1, 1, 5 and 5.
    assert (replayed["threshold_mean"], replayed["threshold_last"]) == (1.5, 3.0)


def test_each_run_has_its_own_kind_of_norm(kit, tmp_path):
    """Two metrics in two runs leave no doubt; two in one do, and have to be named."""
    for name in ("a", "b"):
        kit.lines(tmp_path / f"{name}.jsonl", {"step": 1, "metrics": {f"{name}.grad_norm": 1.0}})
    found = kit.replay_json(tmp_path, "--clipper", "zscore")
    assert [(run["run"], run["metric"]) for run in found] == [
        ("a", "a.grad_norm"), ("b", "b.grad_norm"),
    ]  # fmt: skip
    both = {"step": 1, "metrics": {"a.grad_norm": 1.0, "b.grad_norm": 1.0}}
    path = kit.lines(tmp_path / "c.jsonl", both)
    said = kit.replay(path, "--clipper", "zscore", exit_code=1).stderr
    assert "Name one with --metric: a.grad_norm, b.grad_norm." in said


def test_a_picture_that_cannot_be_written_costs_no_table(kit, tmp_path):
    path, out = kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0)), tmp_path / "a.png"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # bytes of a file, as on a full disk
    try:
        result = kit.replay(path, "--clipper", "zscore", "--out", out, exit_code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.stdout.startswith("a: 1 norm of training.grad_norm")
    assert result.stderr == f"Error: Cannot write the picture '{out}': File too large.\n"
    assert list(tmp_path.iterdir()) == [path]
