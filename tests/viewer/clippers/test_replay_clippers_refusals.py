"""``telemetry replay --clipper`` where something is missing, wrong or in the way."""

import json

import pytest

import clipping

EAGER = {"warmup_steps": 3, "min_history": 2}


def test_a_clipper_is_looked_at_before_the_files(kit, tmp_path):
    said = kit.replay(tmp_path / "none.jsonl", "--clipper", "adam", exit_code=2).stderr
    assert "There is no clipper 'adam'" in said


def test_a_missing_file(kit, tmp_path):
    said = kit.replay(tmp_path / "none.jsonl", "--clipper", "zscore", exit_code=1).stderr
    assert "There is no file" in said


def test_an_empty_file(kit, tmp_path):
    path = kit.lines(tmp_path / "a.jsonl")
    said = kit.replay(path, "--clipper", "zscore", exit_code=1).stderr
    assert said == (
        "Error: There are no gradient norms in these files: clippers report "
        "smartclip.grad_norm, training loops training.grad_norm.\n"
    )


def test_a_run_without_norms_among_others_is_left_out(kit, tmp_path):
    kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
    kit.lines(tmp_path / "b.jsonl", {"step": 1, "loss": 2.0})
    result = kit.replay(tmp_path, "--clipper", "zscore")
    assert "b: left out, it has no gradient norms." in result.stderr
    assert result.stdout.startswith("a: 1 norm of")


def test_a_run_with_several_norms_among_others_is_told_so(kit, tmp_path):
    kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
    kit.lines(tmp_path / "b.jsonl", {"step": 1, "metrics": {"g.grad_norm": 1, "d.grad_norm": 2}})
    said = kit.replay(tmp_path, "--clipper", "zscore").stderr
    assert said == (
        "b: left out, it has several gradient norms. Name one with --metric: g.grad_norm, "
        "d.grad_norm.\n"
    )
    alone = kit.replay(tmp_path / "b.jsonl", "--clipper", "zscore", exit_code=1).stderr
    assert alone == (
        "Error: b has several gradient norms. Name one with --metric: g.grad_norm, d.grad_norm.\n"
    )


def test_a_run_whose_norms_were_not_asked_for_is_told_so(kit, tmp_path):
    kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0, rank=1))
    kit.lines(tmp_path / "b.jsonl", kit.step_of(1, 1.0, rank=0))
    given = ("--clipper", "zscore", "--where", "rank=1")
    said = kit.replay(tmp_path, *given).stderr
    assert said == "b: left out, no record with rank=1 has a gradient norm.\n"
    of_one = kit.replay(tmp_path, *given, "--metric", "training.grad_norm").stderr
    assert of_one == "b: left out, no record with rank=1 has training.grad_norm.\n"


def test_agc_where_only_the_norm_of_the_model_is_there(kit, tmp_path):
    path = kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
    assert kit.replay(path, "--clipper", "agc", exit_code=1).stderr == (
        "Error: a: agc needs weight norms, and training.grad_norm is the norm of a whole "
        "model. A clipper records them with the events smartclip.clip.**, be it with "
        "dry_run=True.\n"
    )


def test_agc_where_another_clipper_recorded(kit, tmp_path):
    path = kit.record(tmp_path / "run.jsonl", [clipping.AutoClip()], steps=2)
    assert kit.replay(path, "--clipper", "agc", exit_code=1).stderr == (
        "Error: run: agc needs the gradient and weight norms of groups with scope per_layer, "
        "and the run was recorded by autoclip with scope global. AGC with scope per_layer "
        "records them, be it with dry_run=True.\n"
    )


def test_a_scope_that_was_not_recorded_names_the_one_that_was(kit, tmp_path):
    path = kit.record(tmp_path / "run.jsonl", [clipping.AGC(scope="per_unit")], steps=2)
    said = kit.replay(path, "--clipper", "agc", exit_code=1).stderr
    assert "recorded by agc with scope per_unit. Write scope=per_unit.\n" in said


def test_groups_that_were_sampled_away(kit, tmp_path):
    clipper = clipping.AutoClip(scope="per_param")
    whole = kit.record(tmp_path / "run.jsonl", [clipper], steps=2).read_text().splitlines()
    keep = [line for line in whole if '"key":["param","1"]' not in line]
    path = tmp_path / "torn.jsonl"
    path.write_text("\n".join(keep))
    said = kit.replay(path, "--clipper", "zscore:scope=per_param", exit_code=1).stderr
    assert "torn: step 1 has the norms of 2 of 3 groups." in said
    assert kit.replay_json(path, "--clipper", "zscore")[0]["clippers"][1]["steps"] == 2


def test_a_clipping_that_was_cut_short_leaves_nothing_behind(kit, tmp_path):
    """In step 5 the first parameter has no gradient; step 4 was killed before its end."""
    clipper = clipping.AutoClip(scope="per_param")
    whole = kit.record(tmp_path / "run.jsonl", [clipper], steps=6).read_text().splitlines()
    stops = [n for n, line in enumerate(whole) if "smartclip.clip.stop" in line]
    del whole[stops[3]]
    torn = tmp_path / "torn.jsonl"
    torn.write_text("\n".join(whole))
    (run,) = kit.replay_json(torn, "--clipper", "zscore:scope=per_param")
    assert run["clippers"][1]["steps"] == 5


def test_a_log_without_starts_will_do(kit, tmp_path):
    """Where norms come from compiled code there are none."""
    clipper = clipping.AutoClip(scope="per_param")
    whole = kit.record(tmp_path / "run.jsonl", [clipper], steps=6).read_text().splitlines()
    path = tmp_path / "stops.jsonl"
    path.write_text("\n".join(line for line in whole if "smartclip.clip.start" not in line))
    (run,) = kit.replay_json(path, "--clipper", "zscore:scope=per_param")
    assert run["clippers"][1]["steps"] == 6


def test_lines_that_are_no_records_are_warned_of(kit, tmp_path):
    path = kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
    path.write_text("garbage\n" + path.read_text())
    assert "no record in line 1" in kit.replay(path, "--clipper", "zscore").stderr


def test_records_without_a_number_are_left_out_and_counted(kit, tmp_path):
    broken = kit.stop_of(2, "much", 1.0, 1.0)
    path = kit.lines(tmp_path / "a.jsonl", kit.stop_of(1, 1.0, 2.0, 1.0), broken)
    (run,) = kit.replay_json(path, "--clipper", "zscore")
    assert run["clippers"][0]["steps"] == 1
    assert run["notes"][0] == "Records left out because their norm or factor is no number: 1."


class TestPicture:
    @pytest.mark.parametrize(("suffix", "begins"), [
        ("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"),
    ])  # fmt: skip
    def test_a_picture_is_written(self, kit, tmp_path, suffix, begins):
        path = kit.record(tmp_path / "run.jsonl", [clipping.AutoClip(**EAGER)])
        out = tmp_path / "new" / f"clippers.{suffix}"
        result = kit.replay(path, "--clipper", "zscore", "--out", out)
        assert out.read_bytes().startswith(begins)
        assert result.stdout.endswith(f"Picture: {out}\n")

    def test_with_json_its_name_is_beside_the_output(self, kit, tmp_path):
        path = kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
        out = tmp_path / "a.png"
        result = kit.replay(path, "--clipper", "zscore", "--out", out, "--json")
        assert json.loads(result.stdout)
        assert f"Picture: {out}" in result.stderr

    def test_another_suffix_is_refused(self, kit, tmp_path):
        path = kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
        said = kit.replay(path, "--clipper", "zscore", "--out", "a.bmp", exit_code=1).stderr
        assert "A picture must be a .png, .svg or .pdf file, got 'a.bmp'." in said

    def test_a_directory_that_cannot_be_is_refused(self, kit, tmp_path):
        path = kit.lines(tmp_path / "a.jsonl", kit.step_of(1, 1.0))
        out = path / "a.png"
        said = kit.replay(path, "--clipper", "zscore", "--out", out, exit_code=1).stderr
        assert said.startswith(f"Error: Cannot write the picture '{out}': ")

    def test_more_runs_than_it_has_room_for_are_refused(self, kit, tmp_path):
        for number in range(13):
            kit.lines(tmp_path / f"{number}.jsonl", kit.step_of(1, 1.0))
        out = tmp_path / "a.png"
        said = kit.replay(tmp_path, "--clipper", "zscore", "--out", out, exit_code=1).stderr
        assert "A picture has room for 1 to 12 runs, and there are 13." in said
        assert not out.exists()
