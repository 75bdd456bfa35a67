"""Ambient metadata: what every event inside a block carries without being told."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any, Final, TypeAlias

Ambient: TypeAlias = Mapping[str, Any] | None

AMBIENT: Final[ContextVar[Ambient]] = ContextVar("telemetry_ambient", default=None)

# Called by this name: `AMBIENT.get()` on an imported name compiles to a plain look-up of an
# attribute, which makes a bound method anew each time and triples the cost.
ambient_metadata: Final = AMBIENT.get


class context:  # noqa: N801 -- used as a verb, like contextlib.suppress
    """Merge metadata under that of every event emitted inside the block.

    Blocks nest, the inner one wins, and what `execute` is given explicitly wins over both. The
    metadata follows ``contextvars``: an asyncio task inherits it, a new thread starts without
    (run the thread's function in ``contextvars.copy_context()`` to hand it on). It is shared by
    all registries.

    Args:
        **metadata: Any keys and values.

    Example:
        >>> import telemetry
        >>> from telemetry.testing import capture
        >>> with capture() as events, telemetry.context(run_id="r1"), telemetry.context(step=3):
        ...     telemetry.execute(("training", "step"), {"loss": 2.5})
        >>> events[0].metadata
        {'run_id': 'r1', 'step': 3}
    """

    __slots__ = ("_metadata", "_tokens")

    def __init__(self, /, **metadata: Any) -> None:
        self._metadata = metadata
        self._tokens: list[Token[Ambient]] = []

    def __enter__(self) -> None:
        outer = AMBIENT.get()
        merged = self._metadata if outer is None else {**outer, **self._metadata}
        self._tokens.append(AMBIENT.set(merged))

    def __exit__(self, *_: object) -> None:
        # Tasks and threads may share this object: only a token made in their own context fits.
        for token in reversed(tuple(self._tokens)):
            if restore(AMBIENT, token):
                self._tokens.remove(token)
                return


def restore(variable: ContextVar[Any], token: Token[Any]) -> bool:
    """Undo a ``variable.set``; False if it was made in another context, which is left alone."""
    try:
        variable.reset(token)
    except ValueError:
        return False  # a generator closed from elsewhere: there the variable was never set
    return True
