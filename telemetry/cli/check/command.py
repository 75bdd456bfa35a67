"""``telemetry check``: what becomes of an event that a handler is given."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import click

from telemetry.cli.check.stages import Failed, Stages
from telemetry.cli.check.surroundings import environment_of, origin_of, packages_of
from telemetry.cli.options.handler_options import (
    ABOUT,
    complete_handler,
    complete_option,
    read_options,
)
from telemetry.cli.options.seconds import Seconds
from telemetry.cli.options.targets import check_process
from telemetry.cli.output.log import log_lines
from telemetry.errors import MissingExtraError
from telemetry.records import EventName
from telemetry.registry import Registry

if TYPE_CHECKING:
    from handlers import SinkAttachment

T = TypeVar("T")
Event: TypeAlias = tuple[EventName, Mapping[str, Any], Mapping[str, Any]]

EVENT: Final = ("training", "step")
RUN_ID: Final = "telemetry-check"
QUEUE_SIZE: Final = 10_000
"""Events that may wait, at least."""
CLOSING: Final = 5.0
"""Seconds that a handler has to close, at most."""

_FAILURE: Final = ("telemetry", "handler", "failure")
_OVERFLOW: Final = ("telemetry", "handler", "overflow")


@click.command()
@click.argument("handler", shell_complete=complete_handler)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_option,
    help=ABOUT,
)
@click.option(
    "--events",
    "count",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many to send, with the steps 1, 2, ...",
)
@click.option(
    "--timeout",
    type=Seconds(above_zero=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the delivery.",
)
def check(handler: str, options: tuple[str, ...], count: int, timeout: float) -> None:
    """Send a test event through HANDLER, and say what happens at each stage.

    The event is training.step with a loss, step 1 and the run_id telemetry-check, or another one
    where nothing would be sent for it. It is sent for real: afterwards it is in the file, or in
    the service. The exit status is 0 only if it was delivered. What comes from @FILE or env:NAME
    is not printed.

    telemetry check jsonl --option path=runs/check.jsonl
    """
    check_process()
    stages = Stages()
    with log_lines(stages.log):
        _Check(handler, timeout, stages).run(options, count)
    if not stages.passed:
        sys.exit(1)


class _Check:
    """One handler's way through the stages."""

    def __init__(self, name: str, timeout: float, stages: Stages) -> None:
        self._name = name
        self._timeout = timeout
        self._stages = stages
        self._registry = Registry()
        self._event: Event = (EVENT, {"loss": 1.0}, {})
        self._failures: list[BaseException] = []
        self._lost: dict[str, int] = {}
        self._registry.attach_many(self, [_FAILURE, _OVERFLOW], self._hear)

    def run(self, options: tuple[str, ...], count: int) -> None:
        """Go through all stages, or as far as there is a way."""
        place = ""
        with self._stages:
            factory = self._find()
            attachment = self._attach(factory, options, count)
            try:
                with self._stages:
                    self._look_at(attachment.handler)
                    self._emit(count)
                    self._deliver(attachment)
                    place = _place(attachment.handler)
            finally:
                self._close(attachment)
            if self._stages.passed and place:
                self._stages.say(f"Look for it here: {place}")

    def _find(self) -> Callable[..., Any]:
        from handlers.lookup import GROUP, find_factory  # noqa: PLC0415 -- after check_process

        try:
            factory = find_factory(self._name)
        except ValueError as error:
            raise Failed("registered", error) from error
        except (ImportError, TypeError) as error:
            raise Failed("installed", error) from error
        (entry, *_) = entry_points(group=GROUP, name=self._name)
        self._stages.ok("registered", origin_of(entry))
        return factory

    def _attach(
        self, factory: Callable[..., Any], options: tuple[str, ...], count: int
    ) -> SinkAttachment:
        import handlers  # noqa: PLC0415 -- after check_process

        # Before the vendor is asked, which can set variables itself.
        environment = environment_of(factory)
        given: dict[str, Any] = {}
        hidden: list[str] = []
        try:
            given = read_options(self._name, factory, options, hidden=hidden)
            self._stages.redact = handlers.Secrets(*hidden).redact
            # Of all events, because which one is sent is known when the handler is there.
            attachment = handlers.attach(
                self._name,
                where=lambda event, *_: event == self._event[0],
                registry=self._registry,
                queue_size=max(QUEUE_SIZE, count),
                flush_timeout=min(self._timeout, CLOSING),
                **given,
            )
        except MissingExtraError as error:
            raise Failed("installed", error) from error
        except click.BadParameter as error:
            self._stages.ok("installed", packages_of(self._name))
            raise Failed("options", error.message) from error
        except (TypeError, ValueError) as error:
            self._stages.ok("installed", packages_of(self._name))
            raise Failed("options", error, *environment) from error
        except (Exception, SystemExit) as error:  # the vendor's, or of another distribution
            self._stages.ok("installed", packages_of(self._name))
            self._stages.ok("options", _names(given), *environment)
            raise Failed("attached", error) from error
        self._stages.ok("installed", packages_of(self._name))
        self._stages.ok("options", _names(given), *environment)
        return attachment

    def _look_at(self, sink: object) -> None:
        """Whether it sends anything, and for which event."""
        from handlers import Checkable, Silenceable  # noqa: PLC0415 -- after check_process

        silence = _asked("attached", sink.why_silent) if isinstance(sink, Silenceable) else ""
        if silence:
            raise Failed("attached", f"it sends nothing: {silence}")
        if isinstance(sink, Checkable):
            self._event = _asked("attached", sink.check_event)
        self._stages.ok("attached", _delivery(sink))

    def _emit(self, count: int) -> None:
        event, measurements, metadata = self._event
        for step in range(1, count + 1):
            values = {name: value / step for name, value in measurements.items()}
            self._registry.execute(event, values, {**metadata, "step": step, "run_id": RUN_ID})
        said = {**measurements, **metadata, "step": "1" if count == 1 else f"1 to {count}"}
        fields = ", ".join(f"{name}={value}" for name, value in (said | {"run_id": RUN_ID}).items())
        self._stages.ok("emitted", f"{'.'.join(event)} with {fields}")

    def _deliver(self, attachment: SinkAttachment) -> None:
        start = time.monotonic()
        try:
            in_time = attachment.flush(self._timeout)
        except Exception as error:
            raise Failed("delivered", error) from error
        self._look("delivered")
        if not in_time:
            raise Failed("delivered", f"not within {self._timeout:g} s")
        self._stages.ok("delivered", f"in {time.monotonic() - start:.2f} s")

    def _close(self, attachment: SinkAttachment) -> None:
        start = time.monotonic()
        attachment.detach()
        with self._stages:
            self._look("closed")
            self._stages.ok("closed", f"in {time.monotonic() - start:.2f} s")

    def _hear(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        if event == _FAILURE:
            self._failures.append(metadata["reason"])
        else:
            policy = metadata["policy"]
            self._lost[policy] = self._lost.get(policy, 0) + measurements["dropped"]

    def _look(self, stage: str) -> None:
        """Whether something went wrong since the last look."""
        failures, self._failures = self._failures, []
        lost, self._lost = self._lost, {}
        for error in failures:
            raise Failed(stage, error)
        if lost:
            counts = ", ".join(f"{count} ({policy})" for policy, count in lost.items())
            raise Failed(stage, f"lost: {counts}")


def _names(options: Mapping[str, Any]) -> str:
    return f"accepted: {', '.join(options)}" if options else "none given"


def _delivery(sink: object) -> str:
    in_background = getattr(sink, "delivery", "ordered") == "background"
    return f"it delivers {'on a worker thread' if in_background else 'in the thread that emits'}"


def _place(sink: object) -> str:
    from handlers import Describing  # noqa: PLC0415 -- after check_process

    place: object = _asked("delivered", sink.where_to_look) if isinstance(sink, Describing) else ""
    return place if isinstance(place, str) else ""


def _asked(stage: str, question: Callable[[], T]) -> T:
    """What a sink answers, which can be of another distribution."""
    try:
        return question()
    except Exception as error:
        raise Failed(stage, error) from error
