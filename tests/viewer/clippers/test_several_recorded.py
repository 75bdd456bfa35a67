"""``telemetry replay --clipper`` over a run in which several clippers have clipped."""


def of_two(kit, path, **second):
    """A generator that autoclip clips, and a discriminator of much larger norms."""
    records = []
    for n in range(1, 4):
        records.append(kit.stop_of(n, 1.0, 9.0, 1.0, algo="autoclip", model="G"))
        records.append(kit.stop_of(n, 100.0, 9.0, 1.0, model="D", **second))
    return kit.lines(path, *records)


def test_norms_that_are_left_out_are_told(kit, tmp_path):
    path = of_two(kit, tmp_path / "a.jsonl")
    (run,) = kit.replay_json(path, "--clipper", "zscore")
    assert run["notes"][0] == (
        "The run also has 3 norms of zscore (global), which are left out. Choose with --where "
        "KEY=VALUE."
    )
    assert run["notes"][0] in kit.replay(path, "--clipper", "zscore").stdout


def test_they_can_be_chosen(kit, tmp_path):
    path = of_two(kit, tmp_path / "a.jsonl")
    for where in ("algo=zscore", "model=D"):
        (run,) = kit.replay_json(path, "--clipper", "zscore", "--where", where)
        assert [one["clipper"] for one in run["clippers"]] == ["recorded: zscore", "zscore"]
        assert run["clippers"][1]["threshold_last"] == 100.0
        assert not any("also has" in note for note in run["notes"])


def test_those_of_several_are_told_each(kit, tmp_path):
    path = of_two(kit, tmp_path / "a.jsonl", dry_run=True)
    with path.open("a") as file:
        more = kit.lines(tmp_path / "b.jsonl", kit.stop_of(9, 1.0, 2.0, 1.0, scope="per_layer"))
        file.write(more.read_text())
    more.unlink()
    (run,) = kit.replay_json(path, "--clipper", "zscore")
    assert run["notes"][0] == (
        "The run also has 1 norm of zscore (per_layer) and 3 norms of zscore (global, dry run), "
        "which are left out. Choose with --where KEY=VALUE."
    )


def test_a_single_one_is_told(kit, tmp_path):
    records = [kit.stop_of(n, 1.0, 2.0, 1.0) for n in (1, 2)]
    last = kit.stop_of(3, 1.0, 2.0, 1.0, algo="autoclip")
    path = kit.lines(tmp_path / "a.jsonl", *records, last)
    (run,) = kit.replay_json(path, "--clipper", "zscore")
    assert "has 1 norm of autoclip (global), which is left out." in run["notes"][0]
