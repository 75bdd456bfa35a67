"""The identity of a span and its place in the tree of spans."""

from __future__ import annotations

import os
import random
from contextvars import ContextVar
from typing import Final, NamedTuple


class SpanContext(NamedTuple):
    """What ``telemetry_span_context`` holds: integers of 64 bits, never 0, unique across processes.

    Attributes:
        span_id: This span's.
        parent_id: The span it was started in, or None for a root.
        trace_id: The root's ``span_id``, the same for the whole tree.
    """

    span_id: int
    parent_id: int | None
    trace_id: int


CURRENT: Final[ContextVar[SpanContext | None]] = ContextVar("telemetry_span", default=None)

# Under a name of its own for the reason given at `ambient_metadata`.
make_current: Final = CURRENT.set

# What SpanContext() calls, without the Python function in between.
_new: Final = tuple.__new__

# A generator of our own: the user's seeded one must give the same numbers with and without us.
_ids = random.Random()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)


def new_span_context() -> SpanContext:
    """A new span's context, child of the one that is current."""
    span_id = _ids.getrandbits(64) or 1
    parent = CURRENT.get()
    if parent is None:
        return _new(SpanContext, (span_id, None, span_id))
    return _new(SpanContext, (span_id, parent.span_id, parent.trace_id))
