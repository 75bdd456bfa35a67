"""What is said of which event in a chat."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from handlers.options import check_takes_three
from handlers.records import Site
from handlers.webhook_templates import Template, Writer
from telemetry import EventName, Registry

FAILURE: Final = ("telemetry", "handler", "failure")
_STAGE_FAILED: Final = Template("Stage {stage} FAILED: {error|reason}")
_STAGE_COMPLETED: Final = Template("Stage {stage} completed in {duration}")


def _stage_stop(
    event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
) -> str:
    failed = metadata.get("success") is False
    return (_STAGE_FAILED if failed else _STAGE_COMPLETED).render(event, measurements, metadata)


DEFAULTS: Final[dict[EventName, str | Writer]] = {
    ("workflow", "run", "stop"): "Training completed in {duration}",
    ("workflow", "run", "exception"): "Training FAILED: {error|reason}",
    ("stage", "run", "stop"): _stage_stop,
    ("stage", "run", "exception"): "Stage {stage} FAILED: {error|reason}",
    ("training", "checkpoint"): "Checkpoint saved: {checkpoint_name|path}",
    ("eval", "complete"): "Evaluation of {model} completed: {measurements}",
    ("model", "registered"): "Model registered: {name} {version}",
    ("alert", "raised"): "Alert ({severity}): {message|rule}",
    ("alert", "cleared"): "Alert cleared: {message|rule}",
    FAILURE: "Handler {handler_id} failed: {reason}",
}
"""Templates, and functions, for the events that people want to hear of."""


class Messages:
    """Writes the message for an event, if it has a template.

    Args:
        handler_id: Whose; its own failures are not told with what has just failed.
        templates: The user's, over the defaults.
        escape: Makes a value harmless where the message is shown.
    """

    def __init__(
        self,
        handler_id: Hashable,
        templates: Mapping[EventName, str | Writer | None],
        escape: Callable[[str], str],
    ) -> None:
        self._handler_id = handler_id
        self._escape = escape
        self._writers = {
            event: self._writer(template)
            for event, template in {**DEFAULTS, **templates}.items()
            if template is not None
        }

    def has(self, event: EventName) -> bool:
        """Whether there is a template for events of a name."""
        return event in self._writers

    def __call__(
        self, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> str | None:
        """The message; None for an event without one.

        Raises:
            Exception: What a template that is a function raised.
        """
        writer = self._writers.get(event)
        if writer is None or (event == FAILURE and metadata.get("handler_id") == self._handler_id):
            return None
        text = writer(event, measurements, metadata)
        if not isinstance(text, str | None):
            raise TypeError(
                f"The template for {event!r} returned {text!r} ({type(text).__name__}). "
                "It must return a string, or None for no message."
            )
        return text if text and text.strip() else None

    def _writer(self, template: str | Writer) -> Writer:
        escape = self._escape
        if isinstance(template, str):
            render = Template(template).render
            return lambda event, measurements, metadata: render(
                event, measurements, metadata, escape
            )

        def written(
            event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
        ) -> str | None:
            text = template(event, measurements, metadata)
            # All of it: what comes from an event cannot be told from what the function adds.
            return escape(text) if isinstance(text, str) else text

        return written


def check_templates(site: Site, templates: object) -> dict[EventName, str | Writer | None]:
    """The templates as they were given, if they can be used.

    Raises:
        TypeError: They are no mapping, or one is no string, function or None.
        ValueError: One is for no event's name, or has fields that cannot be.
    """
    if templates is None:
        return {}
    if not isinstance(templates, Mapping):
        raise TypeError(
            f"Handler {site.handler_id!r}: templates must map event names to texts, got "
            f"{templates!r} ({type(templates).__name__}). "
            'Write templates={("training", "epoch"): "Epoch {epoch} done"}.'
        )
    for event, template in templates.items():
        Registry().execute(event, {})  # refuses what is no event's name
        _check_template(f"Handler {site.handler_id!r}: the template for {event!r}", template)
    return dict(templates)


def _check_template(what: str, template: object) -> None:
    if callable(template):
        check_takes_three(what, template)
    elif isinstance(template, str):
        try:
            Template(template)
        except ValueError as error:
            raise ValueError(f"{what} is {template!r}: {error}.") from None
    elif template is not None:
        raise TypeError(
            f"{what} must be a string with fields, a function (event, measurements, metadata), "
            f"or None for no message, got {template!r} ({type(template).__name__})."
        )
