"""What JAX is doing in this thread, and what of it a value carries."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import jax

try:
    from jax.extend.core import get_opaque_trace_state
    from jax.extend.core import (  # type: ignore[attr-defined] # jax has no types for it
        unsafe_am_i_under_a_vmap_DO_NOT_USE as under_vmap,
    )
except ImportError:  # before 0.10
    from jax.core import get_opaque_trace_state
    from jax.core import unsafe_am_i_under_a_vmap_DO_NOT_USE as under_vmap


def _trace_state() -> Any:
    return get_opaque_trace_state(convention="trainbus")  # type: ignore[no-untyped-call] # jax has no types for it


def _eager() -> Any:
    # This module may be imported inside a transformation. They are kept by thread.
    with ThreadPoolExecutor(1) as fresh:
        return fresh.submit(_trace_state).result()


EAGER: Final = _eager()


def in_eager_code() -> bool:
    """Whether this thread is in no transformation of JAX."""
    return bool(_trace_state() == EAGER)


def in_vmap() -> bool:
    """Whether this thread is in a ``vmap``, so that what a function closes over may be a batch."""
    # It is unsafe for what is computed to depend on this. Here only what is reported does.
    return bool(under_vmap())


def without_graph(value: Any) -> Any:
    """The value without what differentiates it; in eager code, ``grad`` included, no tracer."""
    return jax.lax.stop_gradient(value) if isinstance(value, jax.core.Tracer) else value


def is_abstract(value: Any) -> bool:
    """Whether it has no number, or one for each member of a batch."""
    return isinstance(value, jax.core.Tracer) and isinstance(without_graph(value), jax.core.Tracer)
