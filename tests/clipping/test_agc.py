"""`AGC` on numbers that can be followed by hand."""

import json
import math

import numpy as np
import pytest

import clipping
from telemetry.testing import capture

STOP, GROUP = ("smartclip", "clip", "stop"), ("smartclip", "clip", "group")
GOOD = {
    "format": 1,
    "algo": "agc",
    "scope": "per_param",
    "keys": [["param", "0"], ["param", "1"]],
    "steps": 3,
}


def clip(kit, clipper, weights, grads):
    """The gradients after one clipping, and its events of groups and of the whole."""
    model = kit.model(*weights)
    kit.set_grads(model, *grads)
    with capture(GROUP, STOP) as events:
        clipping.apply(model, clipper)
    return kit.grads(model), events


def agc(**options):
    return clipping.AGC(**{"clipping": 0.1, "scope": "per_param"} | options)


WEIGHTS = [[[3.0, 0.0]], [[0.0], [4.0]]]
GRADS = [[[0.6, 0.0]], [[0.0], [0.2]]]


def test_each_parameter_is_held_against_its_own_weights(kit):
    """Targets 0.3 and 0.4 for norms 0.6 and 0.2."""
    grads, (first, second, stop) = clip(kit, agc(), WEIGHTS, GRADS)
    np.testing.assert_allclose(grads[0], [[0.3, 0.0]], rtol=1e-12)
    assert grads[1].tolist() == GRADS[1]
    assert first.measurements == {
        "grad_norm": pytest.approx(0.6),
        "target": pytest.approx(0.3),
        "weight_norm": 3.0,
        "scale": pytest.approx(0.5),
        "clipped": True,
    }
    assert first.metadata == {"algo": "agc", "scope": "per_param", "key": ("param", "0")}
    assert (second.measurements["scale"], second.measurements["clipped"]) == (1.0, False)
    assert (stop.measurements["groups"], stop.measurements["groups_clipped"]) == (2, 1)
    assert {"target", "weight_norm", "threshold"}.isdisjoint(stop.measurements)


def test_whole_model_is_held_against_all_weights(kit):
    """Weights of norm 5 allow 0.5; the gradients have norm 1."""
    grads = [[[0.6, 0.0]], [[0.0], [0.8]]]
    got, (_, stop) = clip(kit, agc(scope="global"), WEIGHTS, grads)
    np.testing.assert_allclose(got[0], [[0.3, 0.0]], rtol=1e-12)
    np.testing.assert_allclose(got[1], [[0.0], [0.4]], rtol=1e-12)
    assert stop.measurements["target"] == pytest.approx(0.5)
    assert stop.measurements["weight_norm"] == pytest.approx(5.0)
    assert stop.metadata["outcome"] == "applied"


def test_every_unit_is_held_against_its_own_weights(kit):
    """Units of norms 5 and 0: rows in torch, columns elsewhere."""
    weight, grad = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[0.3, 0.4], [1.0, 0.0]])
    if kit.name == "numpy":
        weight, grad = weight.T, grad.T
    (got,), (group, stop) = clip(kit, agc(scope="per_unit"), [weight], [grad])
    expected = np.array([[0.3, 0.4], [1e-4, 0.0]])
    np.testing.assert_allclose(got if kit.name == "torch" else got.T, expected, rtol=1e-12)
    assert group.metadata["key"] == ("param", "0")
    measured = {name: np.asarray(value).tolist() for name, value in group.measurements.items()}
    assert measured == {
        "grad_norm": pytest.approx([0.5, 1.0]),
        "target": pytest.approx([0.5, 1e-4]),
        "weight_norm": pytest.approx([5.0, 0.0]),
        "scale": pytest.approx([1.0, 1e-4]),
        "clipped": [False, True],
    }
    assert (stop.measurements["groups"], stop.measurements["groups_clipped"]) == (1, 1)


def test_on_metrics_gets_lists_of_numbers_per_unit(kit):
    model = kit.model(np.eye(2))
    kit.set_grads(model, np.eye(2) * [0.05, 0.2])
    records = []
    clipping.apply(model, agc(scope="per_unit"), records.append)
    (record,) = records
    assert record == {
        "algo": "agc",
        "key": ("param", "0"),
        "scope": "per_unit",
        "grad_norm": pytest.approx([0.05, 0.2]),
        "target": pytest.approx([0.1, 0.1]),
        "weight_norm": [1.0, 1.0],
        "scale": pytest.approx([1.0, 0.5]),
        "clipped": [False, True],
    }
    assert {type(number) for name in ("scale", "clipped") for number in record[name]} == {
        float,
        bool,
    }


@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_weights_of_norm_zero_are_taken_for_eps(kit, eps):
    (grad,), _ = clip(kit, agc(eps=eps), [np.zeros((1, 2))], [[[3.0, 4.0]]])
    np.testing.assert_allclose(np.linalg.norm(grad), 0.1 * eps, rtol=1e-6)


def test_gradient_of_zeros_stays_as_it_is(kit):
    (grad,), (group, stop) = clip(kit, agc(), [np.zeros((1, 2))], [[[0.0, 0.0]]])
    assert grad.tolist() == [[0.0, 0.0]]
    assert (group.measurements["scale"], group.measurements["clipped"]) == (1.0, False)
    assert stop.metadata["outcome"] == "unclipped"


def test_tiny_norm_above_a_tinier_target_is_divided_by_a_millionth(kit):
    """Target 1e-8 and norm 1e-7: the factor is 1e-8 / 1e-6, as in the paper's code."""
    (grad,), _ = clip(kit, agc(clipping=1e-5), [np.zeros((1, 1))], [[[1e-7]]])
    np.testing.assert_allclose(grad, [[1e-9]], rtol=1e-6)


def test_norm_at_its_target_is_not_clipped(kit):
    grad = 0.5 * np.ones((1, 1))
    (got,), (group, _) = clip(kit, agc(clipping=0.25), [[[2.0]]], [grad])
    assert got.tolist() == grad.tolist()
    assert group.measurements["clipped"] is False


@pytest.mark.parametrize("gate", ["warmup_steps", "min_history"])
def test_first_steps_are_observed_only(kit, gate):
    clipper = agc(**{gate: 2})
    scales = [
        clip(kit, clipper, [[[1.0]]], [[[1.0]]])[1][0].measurements["scale"] for _ in range(4)
    ]
    assert scales == pytest.approx([1.0, 1.0, 0.1, 0.1])


def test_spike_is_clipped_in_the_first_step(kit):
    (grad,), _ = clip(kit, agc(), [[[1.0]]], [[[1e6]]])
    np.testing.assert_allclose(grad, [[0.1]], rtol=1e-6)


def test_excluded_parameter_is_left_alone_and_counts_in_the_models_norm(kit):
    weights, grads = [[[1.0, 0.0]], [1.0, 1.0]], [[[3.0, 0.0]], [0.0, 4.0]]
    got, (group, stop) = clip(kit, agc(), weights, grads)
    np.testing.assert_allclose(got[0], [[0.1, 0.0]], rtol=1e-6)
    assert got[1].tolist() == [0.0, 4.0]
    assert group.metadata["key"] == ("param", "0")
    assert stop.measurements["grad_norm"] == pytest.approx(5.0)
    assert stop.measurements["clipped_grad_norm"] == pytest.approx(math.hypot(0.1, 4.0))
    assert (stop.measurements["groups"], stop.measurements["groups_clipped"]) == (1, 1)


def test_bias_is_clipped_when_asked_for(kit):
    got, _ = clip(kit, agc(exclude_bias_bn=False), [[[1.0]], [2.0]], [[[0.0]], [4.0]])
    np.testing.assert_allclose(got[1], [0.2], rtol=1e-6)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", [[[0.0, 0.0]], [0.0, 0.0]]),
        ("zero", [[[0.05, 0.0]], [0.0, 0.0]]),
        ("propagate", [[[0.05, 0.0]], [math.nan, 4.0]]),
    ],
)
def test_excluded_parameter_obeys_the_policy_for_what_is_not_finite(kit, policy, expected):
    weights, grads = [[[1.0, 0.0]], [1.0, 1.0]], [[[0.05, 0.0]], [math.nan, 4.0]]
    with capture(("smartclip", "clip", "nonfinite")) as events:
        got, _ = clip(kit, agc(on_nonfinite=policy), weights, grads)
    for grad, like in zip(got, expected, strict=True):
        np.testing.assert_array_equal(grad, like)
    (event,) = events
    assert event.metadata == {"algo": "agc", "keys": (("param", "1"),), "policy": policy}


def test_raise_names_the_excluded_parameter(kit):
    model = kit.model([[1.0]], [1.0])
    kit.set_grads(model, [[3.0]], [math.inf])
    with pytest.raises(FloatingPointError) as refused:
        clipping.apply(model, agc(on_nonfinite="raise"))
    assert str(refused.value) == (
        "Gradients are not finite in 1 of 2 groups, [('param', '1')]: the model's gradient norm "
        "is inf. on_nonfinite='raise' allows finite gradients only; gradients and history are "
        "untouched. To go on without such steps: on_nonfinite='skip'."
    )
    assert [grad.tolist() for grad in kit.grads(model)] == [[[3.0]], [math.inf]]


def test_model_of_biases_only_is_refused_and_untouched(kit):
    model = kit.model([1.0, 2.0])
    kit.set_grads(model, [3.0, 4.0])
    with pytest.raises(ValueError, match="leaves out") as refused:
        clipping.apply(model, agc())
    assert str(refused.value) == (
        "AGC leaves out all of the 1 parameters, because none has more than one dimension. "
        "Allowed: at least one that is clipped; give exclude_bias_bn=False to clip biases too."
    )
    assert kit.grads(model)[0].tolist() == [3.0, 4.0]


def test_dry_run_reports_and_leaves_gradients_alone(kit):
    (grad,), (group, stop) = clip(kit, agc(dry_run=True), [[[1.0]]], [[[1.0]]])
    assert grad.tolist() == [[1.0]]
    assert group.measurements["scale"] == pytest.approx(0.1)
    assert stop.measurements["clipped_grad_norm"] == pytest.approx(0.1)
    assert (stop.metadata["dry_run"], stop.metadata["outcome"]) == (True, "applied")


def test_threshold_is_the_first_target_and_not_part_of_the_state(kit):
    clipper = agc()
    assert clipper.threshold_any() == math.inf
    clip(kit, clipper, WEIGHTS, GRADS)
    assert clipper.threshold_any() == pytest.approx(0.3)
    clipper.load_state_dict(clipper.state_dict())
    assert clipper.threshold_any() == math.inf
    clip(kit, clipper, WEIGHTS, GRADS)
    assert clipper.threshold_any() == pytest.approx(0.3)


def test_state_is_the_number_of_steps(kit):
    clipper = agc()
    assert clipper.state_dict() == GOOD | {"keys": [], "steps": 0}
    for _ in range(3):
        clip(kit, clipper, WEIGHTS, GRADS)
    assert clipper.state_dict() == GOOD


def test_warm_up_goes_on_through_json(kit):
    straight = agc(warmup_steps=2)
    clip(kit, straight, WEIGHTS, GRADS)
    resumed = agc(warmup_steps=2)
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    scales = [clip(kit, resumed, WEIGHTS, GRADS)[1][0].measurements["scale"] for _ in range(2)]
    assert scales == pytest.approx([1.0, 0.5])
    assert resumed.state_dict()["steps"] == 3


@pytest.mark.parametrize(
    ("change", "name", "value", "allowed"),
    [
        ({"algo": "zscore"}, "algo", "'zscore'", "'agc' here"),
        ({"scope": "per_unit"}, "scope", "'per_unit'", "'per_param' here"),
        ({"format": "1"}, "format", "'1'", "1 here"),
        ({"steps": 2.0}, "steps", "2.0", "an integer of at least 0"),
        ({"keys": [["param", 0]]}, "keys", "[['param', 0]]", "a list of lists of strings"),
    ],
)
def test_state_that_does_not_fit_is_refused_and_changes_nothing(kit, change, name, value, allowed):
    clipper = agc()
    clip(kit, clipper, WEIGHTS, GRADS)
    before = clipper.state_dict()
    with pytest.raises(ValueError, match="cannot be loaded") as refused:
        clipper.load_state_dict(GOOD | change)
    assert str(refused.value) == (
        f"This state cannot be loaded: {name!r} is {value}, it must be {allowed}. "
        "Nothing was changed."
    )
    assert clipper.state_dict() == before


def test_state_with_thresholds_is_refused():
    with pytest.raises(ValueError, match="no clipper's state") as refused:
        agc().load_state_dict(GOOD | {"thresholds": [1.0, 1.0]})
    assert str(refused.value) == (
        "This is no clipper's state: missing [], unknown ['thresholds']. Allowed: exactly "
        "['format', 'algo', 'scope', 'keys', 'steps'], as state_dict() returns them."
    )


def test_state_of_other_parameters_is_refused_in_the_next_step(kit):
    clipper = agc()
    clipper.load_state_dict(GOOD)
    model = kit.model([[1.0]])
    kit.set_grads(model, [[5.0]])
    with pytest.raises(ValueError, match="history is of the groups") as refused:
        clipping.apply(model, clipper)
    assert str(refused.value) == (
        "This clipper's history is of the groups [('param', '0'), ('param', '1')], the gradients "
        "are of [('param', '0')]. Use one clipper per model, or load the state that belongs to "
        "this model with load_state_dict(). Parameters that are frozen, unfrozen or added change "
        "the groups: begin with a new clipper then."
    )
    assert kit.grads(model)[0].tolist() == [[5.0]]
