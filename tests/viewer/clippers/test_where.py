"""``--where KEY=VALUE`` means the same of norms and of events."""

import json

import pytest

from telemetry.cli.options.event_choice import Chosen

CASES = [
    (7, "7", True),
    (7, "7.0", True),
    (7, "07", True),
    (7, "8", False),
    (7.5, "75e-1", True),
    (2**53 + 1, str(2**53), False),
    ("7", "7", True),
    ("7", "7.0", False),
    ("NaN", "NaN", True),
    (True, "true", True),
    (True, "True", True),
    (True, "1", False),
    (None, "null", True),
    (None, "none", True),
    (["param", 0], "param.0", True),
    (["param", 0], '["param",0]', False),
    ("z 3.0", "z 3.0", True),
    ("it's", "it's", True),
    ("", "", True),
    ("x", "X", False),
]


@pytest.mark.parametrize(("value", "text", "is_meant"), CASES, ids=repr)
def test_a_value_is_meant_or_not(kit, tmp_path, value, text, is_meant):
    assert Chosen((), [f"key={text}"])(("training", "step"), {"key": value}) is is_meant

    path = kit.lines(tmp_path / "a.jsonl", kit.stop_of(1, 1.0, 2.0, 1.0, key=value))
    given = ("--clipper", "zscore", "--where", f"key={text}", "--json")
    result = kit.replay(path, *given, exit_code=0 if is_meant else 1)
    assert not is_meant or json.loads(result.stdout)[0]["clippers"][0]["steps"] == 1


def test_a_key_that_is_not_there_is_never_meant(kit, tmp_path):
    assert not Chosen((), ["key=None"])(("training", "step"), {})
    path = kit.lines(tmp_path / "a.jsonl", kit.stop_of(1, 1.0, 2.0, 1.0))
    kit.replay(path, "--clipper", "zscore", "--where", "key=None", exit_code=1)


def test_all_conditions_must_hold(kit, tmp_path):
    pairs = [(1, "a"), (1, "b"), (2, "a"), (1.0, "a")]
    records = [kit.step_of(n, 1.0, rank=rank, model=m) for n, (rank, m) in enumerate(pairs)]
    path = kit.lines(tmp_path / "a.jsonl", *records)
    (run,) = kit.replay_json(path, "--clipper", "zscore", "--where", "rank=1", "--where", "model=a")
    assert run["clippers"][0]["steps"] == 2
