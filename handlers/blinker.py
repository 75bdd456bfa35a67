"""Events as blinker signals, for programs that have receivers of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from inspect import iscoroutine
from typing import Any

import blinker

from handlers.losses import Losses, is_announcement
from handlers.records import Site
from handlers.text import error_text, value_text
from telemetry import EventName

logger = logging.getLogger("telemetry")


class Blinker:
    """A sink that sends each event as the signal of its dotted name.

    The sender is the registry, the keyword arguments are ``event``, ``measurements`` and
    ``metadata``. Receivers are called in the emitter's thread, with the values as they are.

    ``Signal.send`` stops at the first receiver that raises. Here the others are still called. The
    error is logged, with its traceback the first time that it is one of this signal's, and
    counted as ``telemetry.handler.overflow`` with the policy ``receiver_failed``. Nobody is
    disconnected: the signal belongs to those who connected to it.

    Source: https://blinker.readthedocs.io
    """

    delivery = "direct"

    def __init__(self, site: Site, namespace: blinker.Namespace) -> None:
        self._registry = site.registry
        self._namespace = namespace
        self._losses = Losses(site, "receiver_failed")
        self._failed: set[str] = set()

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Send one event."""
        name = ".".join(event)
        # A signal that nobody asked for has no receivers; made here, they would pile up.
        signal = self._namespace.get(name)
        if signal is None or not signal.receivers or signal.is_muted:
            return
        for receiver in tuple(signal.receivers_for(self._registry)):
            try:
                answer = receiver(
                    self._registry, event=event, measurements=measurements, metadata=metadata
                )
                if iscoroutine(answer):
                    answer.close()
                    raise TypeError("a receiver must be a plain function, not a coroutine function")  # noqa: TRY301 -- isolated like what a receiver raises
            except Exception as error:
                self._report(event, receiver, error)

    def close(self) -> None:
        """Say what was not said yet."""
        self._losses.announce_rest()

    def _report(self, event: EventName, receiver: object, error: Exception) -> None:
        name = ".".join(event)
        # A repr is the receiver's own code, and may fail as well.
        shown = f"Receiver {value_text(receiver)} of signal {name!r} failed"
        if name not in self._failed:
            self._failed.add(name)
            logger.error("%s", shown, exc_info=error)
        self._losses.add(0 if is_announcement(event) else 1, f"{shown}: {error_text(error)}")


def create(site: Site, *, namespace: blinker.Namespace | None = None) -> Blinker:
    """Make the handler ``blinker``.

    Args:
        site: Where it is attached.
        namespace: Where the signals are looked up, by default where ``blinker.signal(name)`` does.

    Raises:
        TypeError: ``namespace`` is none.

    Example:
        >>> import blinker, handlers, telemetry
        >>> def show(registry, event, measurements, metadata):
        ...     print(event, measurements, metadata)
        >>> receiver = blinker.signal("training.step").connect(show)
        >>> with handlers.attach("blinker"):
        ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        ('training', 'step') {'loss': 2.5} {'step': 1}
        >>> blinker.signal("training.step").disconnect(show)
    """
    if namespace is None:
        namespace = blinker.default_namespace
    if not isinstance(namespace, blinker.Namespace):
        raise TypeError(
            f"Handler {site.handler_id!r}: namespace must be a blinker.Namespace, got "
            f"{namespace!r} ({type(namespace).__name__}). Write namespace=blinker.Namespace()."
        )
    return Blinker(site, namespace)
