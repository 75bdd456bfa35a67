"""Where loops are, while blocks and other loops come and go over them."""

import contextvars

import pytest

from telemetry import context
from telemetry.ambient import Layer, ambient_metadata

OUTER, INNER = "the outer loop", "the inner loop"


def steps(loop, *numbers):
    for number in numbers:
        Layer.lay({loop: number}, loop)


@pytest.fixture
def alone():
    """Runs a function where nothing is ambient."""
    return contextvars.Context().run


def test_a_block_that_is_left_leaves_a_loop_where_it_has_come_to(alone):
    def main():
        steps(OUTER, 1, 2)
        block = context(phase="data")
        block.__enter__()
        steps(OUTER, 3, 4)
        assert ambient_metadata() == {"phase": "data", OUTER: 4}
        block.__exit__()
        assert ambient_metadata() == {OUTER: 4}

    alone(main)


def test_a_loop_inside_leaves_the_one_around_where_it_has_come_to(alone):
    def main():
        steps(OUTER, 1, 2)
        steps(INNER, 7, 8)
        assert ambient_metadata() == {OUTER: 2, INNER: 8}
        Layer.lift(INNER)
        assert ambient_metadata() == {OUTER: 2}

    alone(main)


def test_a_block_around_a_loop_that_is_over_takes_nothing_along(alone):
    def main():
        with context(phase="data"):
            steps(OUTER, 1, 2)
            Layer.lift(OUTER)
            assert ambient_metadata() == {"phase": "data"}
        assert ambient_metadata() is None

    alone(main)


def test_a_copy_of_the_context_stays_where_it_was_made(alone):
    def main():
        steps(OUTER, 1, 2)
        copy = contextvars.copy_context()
        steps(OUTER, 3)

        def there():
            with context(phase="data"):
                pass
            return ambient_metadata()

        assert copy.run(there) == {OUTER: 2}
        assert ambient_metadata() == {OUTER: 3}

    alone(main)


def test_a_loop_inside_a_block_knows_where_the_one_around_has_come_to(alone):
    def main():
        steps(OUTER, 1, 2)
        with context(phase="data"):
            steps(INNER, 7)
            assert ambient_metadata() == {OUTER: 2, "phase": "data", INNER: 7}

    alone(main)


def test_a_loop_that_is_closed_late_leaves_the_one_around_where_it_is(alone):
    def main():
        steps(OUTER, 1)
        with context(phase="data"):
            steps(INNER, 7)
        steps(OUTER, 2)
        Layer.lift(INNER)
        assert ambient_metadata() == {OUTER: 2}

    alone(main)
