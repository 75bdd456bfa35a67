import importlib
from collections import OrderedDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regularizers.trees import flatten, map_leaves, refill

Point = namedtuple("Point", "x y")  # noqa: PYI024 -- the plain kind is what is walked

TREES = [
    (1.0, {(): 1.0}),
    (None, {}),
    ([], {}),
    ({}, {}),
    ("leaf", {(): "leaf"}),
    ([1, [2, (3,)]], {(0,): 1, (1, 0): 2, (1, 1, 0): 3}),
    ({"b": 1, "a": {"c": None}}, {("b",): 1}),
    (Point(1, [2]), {(0,): 1, (1, 0): 2}),
    (OrderedDict(z=1, y=2), {("z",): 1, ("y",): 2}),
]


@pytest.mark.parametrize(("tree", "leaves"), TREES)
def test_flatten_finds_the_leaves_in_order(tree, leaves):
    assert list(flatten(tree).items()) == list(leaves.items())


def test_named_tuples_are_kept():
    assert map_leaves(lambda x: -x, Point(1, [2])) == Point(-1, [-2])


trees = st.recursive(
    st.none() | st.integers(),
    lambda branch: (
        st.lists(branch) | st.dictionaries(st.text(), branch) | st.tuples(branch, branch)
    ),
)


@given(trees)
def test_mapping_the_identity_gives_an_equal_tree(tree):
    assert map_leaves(lambda leaf: leaf, tree) == tree


@given(trees)
def test_refilling_with_its_own_leaves_gives_an_equal_tree(tree):
    assert refill(tree, flatten(tree).values()) == tree


@given(trees)
def test_mapping_applies_to_what_flatten_finds(tree):
    mapped = flatten(map_leaves(lambda leaf: leaf + 1, tree))
    assert mapped == {path: leaf + 1 for path, leaf in flatten(tree).items()}


def test_a_tree_of_tensors_is_walked_in_a_single_graph_of_torch_beside_jax():
    """JAX, which is asked about nodes of other types, cannot be compiled by torch."""
    importlib.import_module("jax")
    torch = importlib.import_module("torch")

    @torch.compile(backend="eager", fullgraph=True)
    def total(tree):
        return sum(flatten(tree).values())

    assert total({"w": [torch.ones(()), torch.ones(())], "b": torch.ones(())}) == 3.0
