"""Every clipper, scope and policy on TensorFlow, held against the float64 NumPy backend."""

import numpy as np
import pytest

import clipping

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import clipping.tensorflow as sc_tf  # noqa: E402 -- after the check that it can be imported

NAMES = ["dense/kernel", "dense/bias", "conv/kernel", "embedding/embeddings", "scale"]
SHAPES = [(4, 3), (3,), (2, 2, 3, 5), (6, 4), ()]
EMBEDDING = 3
STEPS = 40
ABSENT = {12: 2, 13: 2, 30: 2}
NONFINITE = {9: (1, np.nan), 21: (0, np.inf), 22: (2, -np.inf), 35: (EMBEDDING, np.nan)}

ALGORITHMS = {
    "auto": lambda **o: clipping.AutoClip(window_size=16, **o),
    "window": lambda **o: clipping.AutoClip(
        mode="percentile", percentile=60, history="window", window_size=16, **o
    ),
    "ema": lambda **o: clipping.AutoClip(
        mode="percentile", percentile=70, ema_decay=0.8, window_size=16, **o
    ),
    "zscore": lambda **o: clipping.ZScoreClip(zmax=0.5, ema_decay=0.9, **o),
    "agc": lambda **o: clipping.AGC(clipping=0.3, **o),
    "agc-all": lambda **o: clipping.AGC(clipping=0.3, exclude_bias_bn=False, **o),
}
CASES = [
    (name, scope)
    for name in ALGORITHMS
    for scope in ("global", "per_layer", "per_param", "per_unit")
    if name.startswith("agc") or scope != "per_unit"
]


class Sparse:
    """The gradient of an embedding: rows, some of them given twice."""

    def __init__(self, values, indices):
        self.values, self.indices = values.astype(np.float32), indices

    def tensor(self):
        return tf.IndexedSlices(
            tf.constant(self.values), tf.constant(self.indices), tf.constant([6, 4])
        )

    def array(self):
        dense = np.zeros((6, 4))
        np.add.at(dense, self.indices, self.values)
        return dense


class Dense:
    def __init__(self, values):
        self.values = np.asarray(values, np.float32)

    def tensor(self):
        return tf.constant(self.values)

    def array(self):
        return self.values.astype(np.float64)


def history():
    rng = np.random.default_rng(7)
    for step in range(STEPS):
        size = rng.lognormal(0, 0.7)
        row = [Dense(size * rng.standard_normal(shape)) for shape in SHAPES]
        row[EMBEDDING] = Sparse(size * rng.standard_normal((3, 4)), rng.integers(0, 6, 3))
        if step in NONFINITE:
            index, value = NONFINITE[step]
            row[index].values.flat[-1] = value
        if step in ABSENT:
            row[ABSENT[step]] = None
        yield row


HISTORY = list(history())
WEIGHTS = [np.random.default_rng(1).standard_normal(s).astype(np.float32) for s in SHAPES]


def nested(values):
    """The tree whose paths are the variables' names."""
    tree = {}
    for name, value in zip(NAMES, values, strict=True):
        *owners, leaf = name.split("/")
        branch = tree
        for owner in owners:
            branch = branch.setdefault(owner, {})
        branch[leaf] = value
    return tree


def flat(tree):
    for value in tree.values():
        yield from flat(value) if isinstance(value, dict) else [value]


def on_numpy(clipper):
    params = nested([w.astype(np.float64) for w in WEIGHTS])
    for row in HISTORY:
        grads = nested([None if g is None else g.array() for g in row])
        try:
            yield list(flat(clipping.numpy.apply_grads(grads, params, clipper)))
        except FloatingPointError:
            yield None


def on_tensorflow(clipper, *, graph):
    variables = [tf.Variable(w, name=n) for n, w in zip(NAMES, WEIGHTS, strict=True)]

    def clip(grads):
        return sc_tf.apply_grads(grads, variables, clipper)

    step = tf.function(clip, autograph=False) if graph else clip
    for row in HISTORY:
        try:
            yield step([None if g is None else g.tensor() for g in row])
        except FloatingPointError:
            yield None


def assert_equal(found, expected):
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert (ours is None) == (theirs is None), step
        for gradient, reference in zip(ours or [], theirs or [], strict=True):
            if reference is None:
                assert gradient is None
                continue
            np.testing.assert_allclose(
                tf.convert_to_tensor(gradient), reference, 1e-5, 1e-7, err_msg=str(step)
            )


def records(clipper):
    """What the clipper holds, as arrays; what is optional is the host's alone."""
    state = clipper.state_dict()
    return {k: v for k, v in state.items() if k not in ("anchors", "norms")}, state.get("norms", [])


def assert_same_state(ours, theirs):
    (known, norms), (expected, expected_norms) = records(ours), records(theirs)
    assert known.keys() == expected.keys()
    for name, value in known.items():
        if name in ("thresholds", "means", "variances", "weights"):
            finite = [np.inf if x is None else x for x in value]
            reference = [np.inf if x is None else x for x in expected[name]]
            np.testing.assert_allclose(finite, reference, 1e-4, 1e-6)
        else:
            assert value == expected[name]
    for row, reference in zip(norms, expected_norms, strict=True):
        np.testing.assert_allclose(row, reference, 1e-5)


def make(case, policy):
    algorithm, scope = case
    options = {"scope": scope, "on_nonfinite": policy, "warmup_steps": 3, "min_history": 2}
    return ALGORITHMS[algorithm](**options)


@pytest.mark.usefixtures("op_by_op")
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate", "raise"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_gradients_and_state_equal_those_of_the_reference(case, policy):
    reference, clipper = make(case, policy), make(case, policy)
    expected = list(on_numpy(reference))
    assert_equal(list(on_tensorflow(clipper, graph=False)), expected)
    assert_same_state(clipper, reference)
    assert sum(map(was_clipped, expected, HISTORY)) >= 3


def was_clipped(results, given):
    pairs = [(r, g.array()) for r, g in zip(results or [], given, strict=False) if g is not None]
    return any(np.isfinite(g).all() and r.any() and not np.array_equal(r, g) for r, g in pairs)


def values(grads):
    return tf.nest.flatten(grads, expand_composites=True)


@pytest.mark.parametrize(
    ("case", "policy"),
    [(case, ("skip", "zero", "propagate")[i % 3]) for i, case in enumerate(CASES)],
    ids=str,
)
def test_eager_code_and_graphs_give_equal_bits(case, policy):
    eager, traced = make(case, policy), make(case, policy)
    found = list(on_tensorflow(eager, graph=False))
    in_graph = list(on_tensorflow(traced, graph=True))
    assert_equal(found, list(on_numpy(make(case, policy))))
    for ours, theirs in zip(in_graph, found, strict=True):
        for a, b in zip(values(ours), values(theirs), strict=True):
            np.testing.assert_array_equal(a, b)
    assert traced.state_dict() == eager.state_dict()
