"""``telemetry replay --clipper`` with clippers of groups: whose a threshold is, and all of them."""

import pytest

EAGER = "warmup_steps=0,min_history=1"
OF_GROUPS = f"autoclip:mode=percentile,percentile=50,history=window,scope=per_param,{EAGER}"


def group_of(kit, step, key, norm):
    record = kit.stop_of(step, norm, 2.0, 1.0, scope="per_param", key=key)
    return record | {"event": "smartclip.clip.group"}


def of_groups(kit, path, steps):
    """A run of a clipper of groups: of each step, the norm of each group that had a gradient."""
    records = []
    for step, norms in enumerate(steps, start=1):
        records += [group_of(kit, step, key, norm) for key, norm in norms.items()]
        stop = kit.stop_of(step, sum(norms.values()), 2.0, 1.0, scope="per_param")
        stop["measurements"]["groups"] = len(norms)
        del stop["measurements"]["threshold"]
        records.append(stop)
    return kit.lines(path, *records)


def svg_of(kit, path, *clippers):
    out = path.with_suffix(".svg")
    kit.replay(path, *(part for one in clippers for part in ("--clipper", one)), "--out", out)
    return out.read_text()


def test_a_second_group_that_comes_later_leaves_the_model_without_a_threshold(kit, tmp_path):
    """The medians of 1, of 1 and 3, and of 1, 3 and 5; the other group begins in step 3."""
    steps = [{"a": 1.0}, {"a": 3.0}, {"a": 5.0, "b": 7.0}]
    path = of_groups(kit, tmp_path / "a.jsonl", steps)
    (run,) = kit.replay_json(path, "--clipper", OF_GROUPS)
    for told in run["clippers"]:
        assert (told["threshold_mean"], told["threshold_last"]) == (None, None)
    groups = [(one["key"], one["threshold_mean"]) for one in run["clippers"][1]["groups"]]
    assert groups == [(["a"], 2.0), (["b"], 7.0)]
    assert svg_of(kit, path, OF_GROUPS).count("(a threshold per group)") == 2


def test_the_threshold_of_the_only_group_is_the_model_s(kit, tmp_path):
    records = []
    for step, norm in enumerate((1.0, 3.0), start=1):
        stop = kit.stop_of(step, norm, 2.0, 1.0, scope="per_param")
        records += [group_of(kit, step, "a", norm), stop]
    path = kit.lines(tmp_path / "a.jsonl", *records)
    (run,) = kit.replay_json(path, "--clipper", OF_GROUPS)
    assert [one["threshold_last"] for one in run["clippers"]] == [2.0, 2.0]
    assert "threshold per group" not in svg_of(kit, path, OF_GROUPS)


def test_a_unit_that_is_the_only_one_has_its_threshold_for_itself(kit, tmp_path):
    """So it is recorded: a list of one."""
    records = []
    for step in (1, 2):
        group = group_of(kit, step, "a", [1.0])
        group["measurements"] |= {"weight_norm": [1.0], "target": [0.5], "scale": [0.5]}
        stop = kit.stop_of(step, 1.0, None, 0.5)
        for record in (group, stop):
            del record["measurements"]["threshold"]
        records += [group, stop]
    for record in records:
        record["metadata"] |= {"algo": "agc", "scope": "per_unit"}
    path = kit.lines(tmp_path / "a.jsonl", *records)
    agc = "agc:clipping=.5,scope=per_unit"
    (run,) = kit.replay_json(path, "--clipper", agc)
    for told in run["clippers"]:
        assert [told["threshold_last"], told["groups"][0]["threshold_last"]] == [None, None]
    assert svg_of(kit, path, agc).count("(a threshold per group)") == 2


def test_weights_that_are_nan_take_no_threshold_of_other_steps_away(kit, tmp_path):
    records = []
    for step, weight_norm in enumerate((10.0, "NaN"), start=1):
        group = group_of(kit, step, ["global"], 1.0)
        group["measurements"]["weight_norm"] = weight_norm
        records += [group, kit.stop_of(step, 1.0, 2.0, 1.0)]
    for record in records:
        record["metadata"] |= {"algo": "agc", "scope": "global"}
    path = kit.lines(tmp_path / "a.jsonl", *records)
    agc = "agc:clipping=.01,scope=global"
    (run,) = kit.replay_json(path, "--clipper", agc)
    assert run["clippers"][1]["threshold_mean"] == pytest.approx(0.01 * 10)
    assert "threshold per group" not in svg_of(kit, path, agc)


def test_a_clipper_of_the_model_beside_a_recorded_one_of_groups(kit, tmp_path):
    """Its groups are not read then, and its thresholds are theirs all the same."""
    path = of_groups(kit, tmp_path / "a.jsonl", [{"a": 1.0, "b": 2.0}] * 3)
    svg = svg_of(kit, path, f"zscore:{EAGER}")
    assert "recorded: zscore (a threshold per group)" in svg
    assert svg.count("threshold per group") == 1


@pytest.mark.parametrize("norm", [0.0, "NaN"])
def test_a_clipper_of_the_model_that_never_had_a_threshold(kit, tmp_path, norm):
    path = kit.lines(tmp_path / "a.jsonl", *(kit.step_of(n, norm) for n in (1, 2, 3)))
    svg = svg_of(kit, path, f"zscore:{EAGER},on_nonfinite=raise")
    assert "on_nonfinite=raise (no threshold)" in svg
    assert "per group" not in svg


def test_groups_whose_names_join_to_the_same_text_are_all_in_json(kit, tmp_path):
    keys = ('["a", "b"]', '["a/b"]')
    path = of_groups(kit, tmp_path / "a.jsonl", [dict.fromkeys(keys, 1.0)] * 2)
    path.write_text(path.read_text().replace('"[', "[").replace(']"', "]").replace('\\"', '"'))
    (run,) = kit.replay_json(path, "--clipper", OF_GROUPS)
    for told in run["clippers"]:
        assert [one["key"] for one in told["groups"]] == [["a", "b"], ["a/b"]]
        assert [one["steps"] for one in told["groups"]] == [2, 2]


@pytest.mark.parametrize(("count", "said"), [(11, "1 more group"), (13, "3 more groups")])
def test_groups_that_a_table_leaves_out_are_counted(kit, tmp_path, count, said):
    norms = {f"g{n}": 1.0 for n in range(count)}
    path = of_groups(kit, tmp_path / "a.jsonl", [norms])
    assert f"  and {said} (--json)\n" in kit.replay(path, "--clipper", OF_GROUPS).stdout


def test_names_are_told_in_full(kit, tmp_path):
    names = [f"{'layers.' * 12}{end}" for end in ("q.weight", "k.weight")]
    path = of_groups(kit, tmp_path / "a.jsonl", [dict.fromkeys(names, 1.0)])
    clippers = [f"{OF_GROUPS},window_size={size}" for size in (10, 11)]
    options = (part for one in clippers for part in ("--clipper", one))
    begins = [line.split("  ") for line in kit.replay(path, *options).stdout.splitlines()]
    for clipper in clippers:
        assert [parts[0] for parts in begins].count(clipper) == 1
    assert [parts[1] for parts in begins if parts[0] == ""].count(names[0]) == 3
