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

Places: TypeAlias = dict[object, Mapping[str, Any]]

# What `context` blocks restore may be older than the step that a loop has come to meanwhile. This
# is never restored, so it says where the loops are; and unlike an attribute of theirs it is, in a
# thread or task that runs in a copy of the context, as it was when the copy was made.
_PLACES: Final[ContextVar[Places]] = ContextVar("telemetry_places", default={})  # noqa: B039 -- never written to

_set_ambient: Final = AMBIENT.set  # as above


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
        merged: Ambient = self._metadata
        if type(outer) is Layer:
            merged = Layer.over(outer, self._metadata, None, _known(outer))
        elif outer is not None:
            merged = {**outer, **self._metadata}
        self._tokens.append(AMBIENT.set(merged))

    def __exit__(self, *_: object) -> None:
        # Tasks and threads may share this object: only a token made in their own context fits.
        for token in reversed(tuple(self._tokens)):
            if restore_ambient(token):
                self._tokens.remove(token)
                return


class Layer(dict[str, Any]):
    """Ambient metadata that say where a loop is, and those of `context` blocks over these.

    A loop sets the next step again and again and has no block of its own: it does so in a
    generator, which may be closed late, from another thread, or never; and between two steps its
    source or its consumer may enter or leave blocks.

    Example:
        >>> loop = object()
        >>> Layer.lay({"step": 3}, loop)
        >>> block = context(phase="data")
        >>> block.__enter__()
        >>> Layer.lay({"step": 4}, loop)
        >>> block.__exit__()
        >>> ambient_metadata()
        {'step': 4}
        >>> Layer.lift(loop)
        >>> ambient_metadata() is None
        True
    """

    __slots__ = ("own", "owner", "places", "under")

    owner: object | None
    """The loop whose place it is; None for a block."""
    own: Mapping[str, Any]
    """What it adds."""
    places: Places
    """Where the loops were when it was made."""
    under: Ambient
    """What it was laid over."""

    @classmethod
    def over(
        cls, under: Ambient, own: Mapping[str, Any], owner: object | None, places: Places
    ) -> Layer:
        """Metadata merged over others."""
        layer = cls(own if under is None else under)
        if under is not None:
            layer |= own
        if owner is not None and None in own.values():
            for name, value in own.items():
                if value is None:
                    del layer[name]
        layer.owner = owner
        layer.own = own
        layer.places = places
        layer.under = under
        return layer

    @classmethod
    def lay(cls, place: Mapping[str, Any], loop: object) -> None:
        """Say where a loop is, from now on. Loops inside it that were left open are over.

        What is None in the place is hidden: it is that of a loop around, and not of this one.
        """
        here = ambient_metadata()
        if type(here) is Layer and here.owner is loop:  # nothing is over it, as is usual
            _set_ambient(cls.over(here.under, place, loop, here.places))
            return
        _known(here)
        places = {**_around(loop), loop: place}
        under = _up_to_date(here, places, loop)
        _PLACES.set(places)
        _set_ambient(cls.over(under, place, loop, places))

    @staticmethod
    def lift(loop: object) -> None:
        """A loop is over, and so are those inside it that were left open.

        Does nothing where it is not known: in a thread or task that it has not run in.
        """
        if loop in _PLACES.get():
            here = AMBIENT.get()
            _known(here)
            places = _around(loop)
            _PLACES.set(places)
            AMBIENT.set(_up_to_date(here, places))


def in_a_loop() -> bool:
    """Whether a loop says where it is."""
    return bool(_PLACES.get())


def restore_ambient(token: Token[Ambient]) -> bool:
    """Leave a block: what was before it, with the loops where they are now; see `restore`."""
    places = _known(AMBIENT.get())
    if not restore(AMBIENT, token):
        return False
    here = AMBIENT.get()
    if type(here) is Layer and here.places is not places:
        AMBIENT.set(_up_to_date(here, places))
    return True


def restore(variable: ContextVar[Any], token: Token[Any]) -> bool:
    """Undo a ``variable.set``; False if it was made in another context, which is left alone."""
    try:
        variable.reset(token)
    except ValueError:
        return False  # a generator closed from elsewhere: there the variable was never set
    return True


def _known(here: Ambient) -> Places:
    """Where the loops are.

    The one whose place is laid over all others moves on without telling, which is faster. So this
    is asked before anything else is done with the metadata that are ambient.
    """
    places = _PLACES.get()
    if type(here) is Layer and here.owner in places and places[here.owner] is not here.own:
        places = {**places, here.owner: here.own}
        _PLACES.set(places)
    return places


def _around(loop: object) -> Places:
    """The loops that were begun before this one."""
    found: Places = {}
    for each, place in _PLACES.get().items():
        if each is loop:
            break
        found[each] = place
    return found


def _up_to_date(here: Ambient, places: Places, without: object | None = None) -> Ambient:
    layers: list[Layer] = []
    while isinstance(here, Layer):
        layers.append(here)
        here = here.under
    for layer in reversed(layers):
        owner = layer.owner
        if owner is None:
            here = Layer.over(here, layer.own, None, places)
        elif owner is not without and owner in places:
            here = Layer.over(here, places[owner], owner, places)
    return here
