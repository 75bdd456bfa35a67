"""Attaching rules to the bus, and their end."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Final

from telemetry import signals
from telemetry.alerts.rule import Rule
from telemetry.alerts.watcher import Watcher
from telemetry.attachment import Attachment
from telemetry.records import EventName
from telemetry.registry import Registry, default_registry

FLUSH_TIMEOUT: Final = 5.0
"""Seconds that values on a device have to be judged at the end."""


def attach(
    rules: Iterable[Rule],
    id: Hashable = "alerts",  # noqa: A002 -- the name that `handlers.attach` gives it too
    *,
    registry: Registry = default_registry,
    clock: Callable[[], float] = time.monotonic,
) -> AlertsAttachment:
    """Judge events by rules from now on: emit ``alert.raised`` and ``alert.cleared``.

    Both carry the metadata of the event that made them, and ``rule``, ``severity``, ``metric`` and
    ``message``; they measure ``value`` and ``limit``. Whoever hears them decides what becomes of
    them: ``handlers.attach("console")``, a webhook, Datadog.

    Numbers are judged at once, in the thread that emits. A scalar on a device is judged by a
    thread of its own when it can be read, in order; of more than 10,000 events that wait for this
    the oldest are dropped, which ``telemetry.handler.overflow`` announces. The states of 4096
    series are kept. A forked child starts without any.

    Args:
        rules: With different names, such as ``[*alerts.TRAINING_RULES, alerts.Rule(...)]``.
        id: The handler's.
        registry: The bus.
        clock: Seconds, for cooldowns and silences. With rules on silence it has to run at the pace
            of real seconds: a thread waits in these for what is due.

    Returns:
        An attachment, which detaches the rules when it is left as a context manager.

    Raises:
        TypeError: The rules are no list of rules.
        ValueError: There are none, or two have the same name.
        HandlerExistsError: The id is taken.

    Example:
        >>> import telemetry
        >>> from telemetry import alerts
        >>> rule = alerts.Rule("kl", "rl.kl_divergence", above=0.1)
        >>> with alerts.attach([rule]), telemetry.testing.capture(("alert", "*")) as events:
        ...     telemetry.emit_rl_step(kl_divergence=0.05, step=1)
        ...     telemetry.emit_rl_step(kl_divergence=0.12, step=2)
        ...     telemetry.emit_rl_step(kl_divergence=0.10, step=3)
        >>> for event in events:
        ...     print(event.event[1], event.metadata["step"], event.metadata["message"])
        raised 2 rl.kl_divergence is 0.12: above 0.1.
        cleared 3 rl.kl_divergence is 0.1: no longer above 0.1.
    """
    checked = _check_rules(rules)
    watcher = Watcher(checked, registry, id, clock)
    # Kept whatever happens: one event that cannot be read must not end the watch over the others.
    attachment = registry.attach_many(id, watcher.patterns, watcher, on_failure="keep")
    watcher.fail = attachment.fail
    return AlertsAttachment(attachment, watcher, checked, registry)


class AlertsAttachment(Attachment):
    """Rules as they were attached: what `attach` gives.

    Attributes:
        rules: As they were given.

    Example:
        >>> from telemetry import alerts
        >>> with alerts.attach([alerts.Rule("nan", "training.loss", nonfinite=True)]) as attachment:
        ...     attachment.flush()
        True
    """

    def __init__(
        self,
        attachment: Attachment,
        watcher: Watcher,
        rules: tuple[Rule, ...],
        registry: Registry,
    ) -> None:
        self.rules = rules
        self._attachment = attachment
        self._watcher = watcher
        self._ended = False
        signals.handler_detached.connect(self._on_detached, sender=registry, weak=False)
        # A hook of its own, so that it runs before those of sinks attached earlier.
        atexit.register(self._end_at_exit)
        self._end_with_child()
        watcher.silence.start()
        if not attachment.active:
            self._end()

    @property
    def id(self) -> Hashable:
        """The id it was attached with."""
        return self._attachment.id

    @property
    def active(self) -> bool:
        """Whether it is still attached."""
        return self._attachment.active

    def detach(self) -> None:
        """Detach the rules; what waits for a device is judged, for at most 5 seconds."""
        self._attachment.detach()

    def fail(self, event: EventName, error: Exception) -> None:
        """Treat ``error`` as if the handler had raised it when it was called for ``event``."""
        self._attachment.fail(event, error)

    def flush(self, timeout: float = FLUSH_TIMEOUT) -> bool:
        """Wait until everything emitted before this call is judged.

        Args:
            timeout: Seconds.

        Returns:
            Whether that happened in time; False in a handler that an alert has called on the
            thread that judges.
        """
        return self._watcher.deferred.flush(timeout)

    def _on_detached(self, _sender: object, handler_id: Hashable) -> None:
        # The id alone does not tell: it may belong to a newcomer by now.
        if handler_id == self.id and not self.active:
            self._end()

    def _end_with_child(self) -> None:
        from multiprocessing import util  # noqa: PLC0415 -- who attaches no rules needs none of it

        # A child of multiprocessing leaves without running what atexit has registered.
        self._finalizer = util.Finalize(None, self._end_at_exit, exitpriority=0)
        util.register_after_fork(self, AlertsAttachment._end_with_child)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        # With the sender, blinker would go on holding the receiver.
        signals.handler_detached.disconnect(self._on_detached)
        atexit.unregister(self._end_at_exit)
        self._finalizer.cancel()
        self._end_at_exit()

    def _end_at_exit(self) -> None:
        """Judge what waits; it stays attached, for what other hooks emit."""
        self._watcher.silence.close()
        self._watcher.deferred.close(FLUSH_TIMEOUT)


def _check_rules(rules: object) -> tuple[Rule, ...]:
    if isinstance(rules, str | Rule) or not isinstance(rules, Iterable):
        raise TypeError(
            f"rules must be a list of rules, got {rules!r} ({type(rules).__name__}). "
            "Write alerts.attach([alerts.Rule(...)])."
        )
    given = tuple(rules)
    names: set[str] = set()
    for rule in given:
        if not isinstance(rule, Rule):
            raise TypeError(
                f"rules has {rule!r} ({type(rule).__name__}), which is no alerts.Rule. "
                "Rules of a file: alerts.load(path)."
            )
        if rule.name in names:
            raise ValueError(
                f"Two rules have the name {rule.name!r}, by which alerts are told apart. "
                "Rename one of them: dataclasses.replace(rule, name=...)."
            )
        names.add(rule.name)
    if not given:
        raise ValueError("rules must not be empty: nothing would be watched.")
    return given
