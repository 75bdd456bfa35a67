"""Which logged values are numbers."""

import decimal
import fractions

import numpy as np
import pytest

from telemetry.integrations.scalars import scalar_of

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    "value",
    [1, 2.5, float("nan"), 10**400, fractions.Fraction(1, 2), np.float32(0.5), np.int64(3)],
    ids=repr,
)
def test_numbers_are_what_they_are(value):
    kept = scalar_of(value)
    assert (type(kept), repr(kept)) == (type(value), repr(value))


@pytest.mark.parametrize(
    "value",
    [
        True,
        None,
        "1",
        [1],
        1j,
        decimal.Decimal(1),
        np.str_("1"),
        np.datetime64("2020-01-01"),
        np.timedelta64(1),
        np.complex64(1),
        np.array(None),
        np.zeros(1),
        np.zeros((), dtype=[("x", float)]),
        torch.zeros(1),
        float,
    ],
    ids=repr,
)
def test_what_is_no_number_is_none(value):
    assert scalar_of(value) is None


def test_a_scalar_array_is_a_copy():
    loss = np.array(1.5)
    kept = scalar_of(loss)
    loss += 1
    assert kept == 1.5


def test_a_scalar_tensor_is_a_copy_without_its_graph_unread():
    loss = torch.ones((), requires_grad=True) * 2
    kept = scalar_of(loss)
    with torch.no_grad():
        loss += 1
    assert kept.item() == 2.0
    assert not kept.requires_grad
    assert scalar_of(torch.ones((), device="meta")).device.type == "meta"


def test_a_scalar_of_half_precision_of_jax_is_a_number():
    """Its dtype is none of numpy's own."""
    jnp = pytest.importorskip("jax.numpy")
    assert float(scalar_of(jnp.asarray(0.5, dtype=jnp.bfloat16))) == 0.5
