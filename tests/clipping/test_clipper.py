import copy
import inspect
import math
import pickle

import numpy as np
import pytest

import clipping

DEFAULTS = {
    "mode": "auto",
    "percentile": 95.0,
    "history": "ema",
    "ema_decay": 0.99,
    "window_size": 1024,
    "scope": "global",
    "warmup_steps": 100,
    "min_history": 50,
    "eps": 1e-8,
    "guard_nans": True,
    "on_nonfinite": "skip",
    "dry_run": False,
}


def test_constructor_has_smartclips_arguments_by_keyword_only():
    parameters = inspect.signature(clipping.AutoClip).parameters
    assert {name: p.default for name, p in parameters.items()} == DEFAULTS
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode must be one of 'auto', 'percentile', got 'fast'."),
        ({"mode": ["auto"]}, "mode must be one of 'auto', 'percentile', got ['auto']."),
        ({"history": "all"}, "history must be one of 'ema', 'window', got 'all'."),
        (
            {"scope": "per_unit"},
            "scope must be one of 'global', 'per_layer', 'per_param', got 'per_unit'.",
        ),
        (
            {"on_nonfinite": "ignore"},
            "on_nonfinite must be one of 'skip', 'zero', 'propagate', 'raise', got 'ignore'.",
        ),
        ({"percentile": 0}, "percentile must be in (0, 100], got 0."),
        ({"percentile": 100.5}, "percentile must be in (0, 100], got 100.5."),
        ({"percentile": float("nan")}, "percentile must be in (0, 100], got nan."),
        ({"ema_decay": 1.0}, "ema_decay must be in (0, 1), got 1.0."),
        ({"ema_decay": 0.0}, "ema_decay must be in (0, 1), got 0.0."),
        ({"eps": 0.0}, "eps must be in (0, inf), got 0.0."),
        ({"eps": float("inf")}, "eps must be in (0, inf), got inf."),
        ({"window_size": 1}, "window_size must be at least 2, got 1."),
        ({"window_size": 0, "mode": "percentile"}, "window_size must be at least 1, got 0."),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1."),
        ({"min_history": -1}, "min_history must be at least 0, got -1."),
        (
            {"guard_nans": False, "on_nonfinite": "raise"},
            (
                "guard_nans=False means on_nonfinite='propagate', got on_nonfinite='raise' as "
                "well. Leave one of them out."
            ),
        ),
    ],
)
def test_value_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the whole text is compared
        clipping.AutoClip(**options)
    assert str(refused.value) == f"AutoClip: {message}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": "95"}, "percentile must be a number in (0, 100], got '95' (str)."),
        ({"eps": True}, "eps must be a number in (0, inf), got True (bool)."),
        ({"window_size": 10.0}, "window_size must be an integer, got 10.0 (float)."),
        ({"warmup_steps": True}, "warmup_steps must be an integer, got True (bool)."),
        ({"guard_nans": 1}, "guard_nans must be True or False, got 1 (int)."),
        ({"dry_run": None}, "dry_run must be True or False, got None (NoneType)."),
    ],
)
def test_value_of_a_wrong_type_is_refused(options, message):
    with pytest.raises(TypeError) as refused:
        clipping.AutoClip(**options)
    assert str(refused.value) == f"AutoClip: {message}"


def test_numpy_numbers_are_numbers():
    clipper = clipping.AutoClip(percentile=np.float32(90), window_size=np.int64(8))
    assert (clipper.percentile, clipper.window_size) == (90, 8)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (clipping.ZScoreClip, {"zmax": 0.0}, "zmax must be in (0, inf), got 0.0."),
        (clipping.ZScoreClip, {"zmax": math.inf}, "zmax must be in (0, inf), got inf."),
        (clipping.ZScoreClip, {"ema_decay": 1}, "ema_decay must be in (0, 1), got 1."),
        (
            clipping.ZScoreClip,
            {"scope": "per_unit"},
            "scope must be one of 'global', 'per_layer', 'per_param', got 'per_unit'.",
        ),
        (clipping.AGC, {"clipping": 0}, "clipping must be in (0, inf), got 0."),
        (clipping.AGC, {"clipping": -0.1}, "clipping must be in (0, inf), got -0.1."),
        (clipping.AGC, {"eps": 0}, "eps must be in (0, inf), got 0."),
        (
            clipping.AGC,
            {"scope": "unit"},
            "scope must be one of 'global', 'per_layer', 'per_param', 'per_unit', got 'unit'.",
        ),
    ],
)
def test_values_of_the_other_clippers_are_checked(kind, options, message):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the whole text is compared
        kind(**options)
    assert str(refused.value) == f"{kind.__name__}: {message}"


def test_flags_of_agc_are_flags():
    with pytest.raises(TypeError) as refused:
        clipping.AGC(exclude_bias_bn=1)
    assert str(refused.value) == "AGC: exclude_bias_bn must be True or False, got 1 (int)."


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        (
            clipping.ZScoreClip,
            {"zmax": 3.0, "ema_decay": 0.99, "scope": "global", "warmup_steps": 100}
            | {"min_history": 50, "eps": 1e-8, "guard_nans": True},
        ),
        (
            clipping.AGC,
            {"clipping": 0.01, "exclude_bias_bn": True, "scope": "per_layer", "warmup_steps": 0}
            | {"min_history": 0, "eps": 1e-3, "guard_nans": True},
        ),
    ],
)
def test_the_other_constructors_have_smartclips_arguments(kind, defaults):
    parameters = inspect.signature(kind).parameters
    own = {"on_nonfinite": "skip", "dry_run": False}
    assert {name: p.default for name, p in parameters.items()} == defaults | own
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_options_cannot_change_under_a_history():
    with pytest.raises(AttributeError, match="cannot assign to field 'window_size'"):
        clipping.AutoClip().window_size = 3


def test_guard_nans_false_means_propagate():
    assert clipping.AutoClip(guard_nans=False).policy == "propagate"
    assert clipping.AutoClip(on_nonfinite="zero").policy == "zero"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])  # noqa: S301 -- our own bytes
def test_copy_goes_on_by_itself(feed, percentile, copied):
    original = percentile(50.0)
    feed(original, [1.0, 2.0, 3.0])
    twin = copied(original)
    assert feed(twin, [9.0])[1].tolist() == feed(original, [9.0])[1].tolist() == [2.5]
    feed(twin, [1.0])
    assert original.threshold_any() == 2.5


def test_history_is_not_shared_between_clippers():
    first, second = clipping.AutoClip(), clipping.AutoClip()
    assert first.memory is not second.memory
    assert first != second
