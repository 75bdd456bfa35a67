"""Losses and regularizers as lines in the log of the standard library."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any, Final

import telemetry
from regularizers.checks import describe
from telemetry.values import jsonable, to_python_many

EVENTS: Final = [
    (*prefix, end)
    for prefix in (("custom_loss",), ("regularizer", "compute"))
    for end in ("stop", "exception")
]

NANOSECONDS_PER_MS: Final = 1e6


def attach_logger(
    *,
    level: int | str = logging.INFO,
    id: Hashable = "regularizers-logger",  # noqa: A002 -- the word of telemetry.attach
    logger: logging.Logger | None = None,
) -> telemetry.Attachment:
    """Log every loss in a line, and every regularizer in another, for debugging.

    - ``Custom loss: total=5.3 regs=1 duration=0.21ms`` at ``level``, with ``grad_norm=...`` and
      ``model_id=...`` where they are known; ``duration`` is not, of a loss in compiled code;
    - ``Regularizer sparsity: value=3 contribution=0.3 duration=0.05ms`` at ``DEBUG``, with
      ``grad_norm=...`` if it is tracked;
    - what failed at ``ERROR``, with the reason.

    Numbers have five significant digits. A line that is written reads its numbers, which waits for
    the device that computes them; one whose level is not enabled reads nothing.

    Args:
        level: Of the losses' lines: a number above 0, or a name such as ``"info"``.
        id: To detach it by.
        logger: Where to log; None for the logger ``regularizers``, whose level and handlers are
            set up as those of any other (``logging.basicConfig(level=logging.INFO)``).

    Returns:
        What detaches it: ``.detach()``, or leaving it as a context manager.

    Raises:
        TypeError: The level is neither a number nor a name, the logger is no ``logging.Logger``,
            or the id cannot be hashed.
        ValueError: No level has that name, or the number is not above 0.
        telemetry.HandlerExistsError: The id is taken.

    Example:
        >>> import logging, sys
        >>> from regularizers import attach_logger, custom_loss
        >>> log = logging.getLogger("example")
        >>> log.addHandler(logging.StreamHandler(sys.stdout))
        >>> log.setLevel(logging.INFO)
        >>> with attach_logger(logger=log):  # doctest: +ELLIPSIS
        ...     output = custom_loss([1.0], [2.0], lambda data, logprobs: 2.5, model_id="m")
        Custom loss: total=2.5 regs=0 duration=...ms model_id=m
    """
    if logger is not None and not isinstance(logger, logging.Logger):
        raise TypeError(
            f"attach_logger got logger={describe(logger)}. "
            "It takes a logger, such as logging.getLogger('training'), or None."
        )
    lines = _Lines(logger or logging.getLogger("regularizers"), _level_number(level))
    return telemetry.attach_many(id, EVENTS, lines)


class _Lines:
    """The handler."""

    def __init__(self, logger: logging.Logger, level: int) -> None:
        self._logger = logger
        self._level = level

    def __call__(
        self,
        event: telemetry.EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: object,
    ) -> None:
        """Log one event."""
        of_loss, failed = event[0] == "custom_loss", event[-1] == "exception"
        usual = self._level if of_loss else logging.DEBUG
        level = logging.ERROR if failed else usual
        if not self._logger.isEnabledFor(level):
            return
        subject = (
            "Custom loss" if of_loss else f"Regularizer {_text(metadata.get('regularizer_name'))}"
        )
        parts = _failure if failed else _loss if of_loss else _regularizer
        shown = parts(_read(measurements), metadata)
        known = " ".join(f"{name}={value}" for name, value in shown.items() if value is not None)
        self._logger.log(level, "%s%s: %s", subject, " failed" if failed else "", known)


def _loss(texts: Mapping[str, str], metadata: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        "total": texts.get("loss_total"),
        "regs": _text(metadata.get("regularizer_count")),
        "duration": texts.get("duration"),
        "grad_norm": texts.get("total_grad_norm"),
        "model_id": _text(metadata.get("model_id")),
    }


def _regularizer(texts: Mapping[str, str], metadata: Mapping[str, Any]) -> dict[str, str | None]:
    return {name: texts.get(name) for name in ("value", "contribution", "duration", "grad_norm")}


def _failure(texts: Mapping[str, str], metadata: Mapping[str, Any]) -> dict[str, str | None]:
    return {
        "reason": _text(metadata.get("reason")),
        "duration": texts.get("duration"),
        "model_id": _text(metadata.get("model_id")),
    }


def _read(measurements: Mapping[str, Any]) -> dict[str, str]:
    numbers = to_python_many([measurements])[0]
    duration = numbers.pop("duration", None)
    texts = {name: _number(value) for name, value in numbers.items()}
    if duration is not None:
        texts["duration"] = f"{_number(duration / NANOSECONDS_PER_MS)}ms"
    return texts


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(jsonable(value))


def _text(value: object) -> str | None:
    """In one line, whatever it is."""
    if value is None:
        return None
    text = str(jsonable(value))
    return text if text.isprintable() else repr(text)


def _level_number(level: object) -> int:
    if isinstance(level, str):
        levels = {name: number for name, number in logging.getLevelNamesMapping().items() if number}
        if level.upper() not in levels:
            raise ValueError(
                f"attach_logger got level={level!r}. It takes a number above 0, or one of "
                f"{', '.join(name.lower() for name in levels)}."
            )
        level = levels[level.upper()]
    if isinstance(level, bool) or not isinstance(level, int):
        raise TypeError(
            f"attach_logger got level={describe(level)}. "
            "It takes a number, such as logging.INFO, or a name, such as 'info'."
        )
    if level < 1:
        raise ValueError(
            f"attach_logger got level={level}, at which nothing is ever logged. "
            "It takes a number above 0, such as logging.INFO."
        )
    return level
