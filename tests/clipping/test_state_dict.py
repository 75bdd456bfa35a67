import importlib
import json
import math

import numpy as np
import pytest

import clipping

OPTIONS = [
    {"mode": "auto"},
    {"mode": "percentile", "history": "window", "percentile": 70},
    {"mode": "percentile", "history": "ema", "percentile": 70},
]
GOOD = {
    "format": 1,
    "algo": "autoclip",
    "scope": "global",
    "keys": [["global"]],
    "steps": 3,
    "thresholds": [2.0],
    "counts": [3],
    "norms": [[1.0, 2.0, 3.0]],
}


def make(options, **more):
    return clipping.AutoClip(**options, warmup_steps=0, min_history=1, **more)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("steps", [0, 1, 5, 8, 29])
def test_clipper_continues_bit_identically_through_json(feed, options, steps):
    norms = np.random.default_rng(steps).lognormal(sigma=1.5, size=steps + 30)
    straight = make(options, window_size=8)
    feed(straight, norms[:steps])
    text = json.dumps(straight.state_dict(), allow_nan=False)
    resumed = make(options, window_size=8)
    resumed.load_state_dict(json.loads(text))
    assert resumed.threshold_any() == straight.threshold_any()
    expected, got = feed(straight, norms[steps:]), feed(resumed, norms[steps:])
    assert [row.tolist() for row in got] == [row.tolist() for row in expected]
    assert resumed.state_dict() == straight.state_dict()


def test_state_is_plain_and_says_what_was_seen(feed, percentile):
    clipper = percentile(50.0, window_size=3)
    feed(clipper, [5.0, 1.0, 2.0, 3.0])
    assert clipper.state_dict() == GOOD | {"steps": 4, "counts": [4]}


def test_state_of_a_new_clipper_is_empty():
    state = clipping.AutoClip().state_dict()
    assert state == GOOD | {"keys": [], "steps": 0, "thresholds": [], "counts": [], "norms": []}


def test_threshold_that_is_infinite_is_none(feed):
    clipper = clipping.AutoClip()
    feed(clipper, [1.0])
    assert clipper.state_dict()["thresholds"] == [None]
    other = clipping.AutoClip()
    other.load_state_dict(clipper.state_dict())
    assert other.threshold_any() == math.inf


def test_loading_an_empty_state_forgets(feed, percentile):
    clipper = percentile(50.0)
    feed(clipper, [1.0, 2.0])
    clipper.load_state_dict(clipping.AutoClip().state_dict())
    assert clipper.threshold_any() == math.inf
    assert feed(clipper, [7.0])[1].tolist() == [7.0]


def test_options_stay_the_objects_own(feed, percentile):
    clipper = percentile(100.0, window_size=5)
    clipper.load_state_dict(GOOD)
    assert (clipper.percentile, clipper.window_size) == (100.0, 5)
    assert feed(clipper, [2.5])[1].tolist() == [3.0]


def test_shorter_window_keeps_the_newest_norms(feed, percentile):
    clipper = percentile(50.0, window_size=2)
    clipper.load_state_dict(GOOD)
    assert clipper.state_dict()["norms"] == [[2.0, 3.0]]
    assert feed(clipper, [9.0])[1].tolist() == [6.0]
    assert clipper.state_dict()["norms"] == [[3.0, 9.0]]


def test_longer_window_starts_with_what_there_is(feed, percentile):
    clipper = percentile(50.0, window_size=9)
    clipper.load_state_dict(GOOD | {"steps": 8, "counts": [8]})
    assert clipper.state_dict()["norms"] == [[1.0, 2.0, 3.0]]
    assert feed(clipper, [9.0])[1].tolist() == [2.5]
    assert clipper.state_dict()["norms"] == [[1.0, 2.0, 3.0, 9.0]]


@pytest.mark.parametrize(
    ("change", "name", "value", "allowed"),
    [
        ({"algo": "zscore"}, "algo", "'zscore'", "'autoclip' here"),
        ({"scope": "per_layer"}, "scope", "'per_layer'", "'global' here"),
        ({"format": 2}, "format", "2", "1 here"),
        ({"steps": -1}, "steps", "-1", "an integer of at least 0"),
        ({"steps": True}, "steps", "True", "an integer of at least 0"),
        ({"keys": "global"}, "keys", "'global'", "a list of lists of strings"),
        ({"keys": [[1]]}, "keys", "[[1]]", "a list of lists of strings"),
        ({"thresholds": []}, "thresholds", "[]", "1 numbers of at least 0 or None"),
        (
            {"thresholds": [math.nan]},
            "thresholds",
            "[nan]",
            "1 numbers of at least 0 or None",
        ),
        ({"counts": [4]}, "counts", "[4]", "1 integers from 0 to 3"),
        ({"counts": ["3"]}, "counts", "['3']", "1 integers from 0 to 3"),
        (
            {"norms": [[1.0, math.inf, 3.0]]},
            "norms",
            "[[1.0, inf, 3.0]]",
            "1 lists of finite numbers of at least 0",
        ),
        (
            {"norms": [[1.0, -2.0]]},
            "norms",
            "[[1.0, -2.0]]",
            "1 lists of finite numbers of at least 0",
        ),
        ({"norms": [1.0]}, "norms", "[1.0]", "1 lists of finite numbers of at least 0"),
        ({"norms": [[]]}, "norms", "[]", "1 to 3 numbers"),
        ({"norms": [[1.0] * 4]}, "norms", "[1.0, 1.0, 1.0, 1.0]", "1 to 3 numbers"),
        ({"counts": [0]}, "norms", "[1.0, 2.0, 3.0]", "empty"),
    ],
)
def test_state_that_does_not_fit_is_refused_and_changes_nothing(
    feed, percentile, change, name, value, allowed
):
    clipper = percentile(50.0)
    feed(clipper, [1.0, 2.0])
    before = clipper.state_dict()
    with pytest.raises(ValueError, match="cannot be loaded") as refused:
        clipper.load_state_dict(GOOD | change)
    assert str(refused.value) == (
        f"This state cannot be loaded: {name!r} is {value}, it must be {allowed}. "
        "Nothing was changed."
    )
    assert clipper.state_dict() == before


def test_long_values_are_shortened_in_the_message():
    with pytest.raises(ValueError, match="cannot be loaded") as refused:
        clipping.AutoClip().load_state_dict(GOOD | {"norms": [["x"] * 1000]})
    assert str(refused.value) == (
        f"This state cannot be loaded: 'norms' is {str([['x'] * 1000])[:99]}…, it must be "
        "1 lists of finite numbers of at least 0. Nothing was changed."
    )


def test_foreign_mapping_is_refused():
    incomplete = {name: GOOD[name] for name in GOOD if name != "norms"}
    with pytest.raises(ValueError, match="no clipper's state") as refused:
        clipping.AutoClip().load_state_dict(incomplete | {"lr": 0.1})
    assert str(refused.value) == (
        "This is no clipper's state: missing ['norms'], unknown ['lr']. Allowed: exactly "
        "['format', 'algo', 'scope', 'keys', 'steps', 'thresholds', 'counts', 'norms'], "
        "as state_dict() returns them."
    )


def test_what_is_no_mapping_is_refused():
    with pytest.raises(TypeError) as refused:
        clipping.AutoClip().load_state_dict([1])
    assert str(refused.value) == (
        "A clipper's state must be a mapping, got [1] (list). Give what state_dict() returned."
    )


def test_history_of_other_groups_is_refused(kit, percentile):
    clipper = percentile(50.0)
    clipper.load_state_dict(GOOD | {"keys": [["other"]]})
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [5.0])
    with pytest.raises(ValueError, match="history is of the groups") as refused:
        clipping.apply(model, clipper)
    assert str(refused.value) == (
        "This clipper's history is of the groups [('other',)], the gradients are of "
        "[('global',)]. Use one clipper per model, or load the state that belongs to this model "
        "with load_state_dict(). Parameters that are frozen, unfrozen or added change the groups: "
        "begin with a new clipper then."
    )
    assert kit.grads(model)[0].tolist() == [5.0]


def test_torch_save_keeps_it(feed, percentile, tmp_path):
    torch = importlib.import_module("torch")
    clipper = percentile(50.0)
    feed(clipper, [1.0, 2.0, 4.0])
    torch.save(clipper.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == clipper.state_dict()
