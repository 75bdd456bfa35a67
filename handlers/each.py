"""A batch taken one by one: an event that cannot be taken does not cost the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from handlers.records import TimedEvent


class BatchError(Exception):
    """Some events of a batch could not be taken; all the others were.

    Attributes:
        failed: These events.
        error: What went wrong with the first of them.
    """

    def __init__(self, failed: Sequence[TimedEvent], error: Exception) -> None:
        super().__init__(f"{len(failed)} events of a batch could not be taken: {error!r}")
        self.failed = failed
        self.error = error


def take_each(
    batch: Sequence[TimedEvent], take: Callable[[TimedEvent], object]
) -> Exception | None:
    """Take each event of a batch, whatever happens to the one before it.

    Returns:
        What to raise once the rest is done: of a single event its own error, else a `BatchError`.

    Example:
        >>> batch = [TimedEvent(0, ("a",), {"x": x}, {}) for x in (1, 0, 2)]
        >>> error = take_each(batch, lambda entry: 1 / entry.measurements["x"])
        >>> error.error, len(error.failed)
        (ZeroDivisionError('division by zero'), 1)
    """
    failed: list[TimedEvent] = []
    first: Exception | None = None
    for entry in batch:
        try:
            take(entry)
        except Exception as error:
            first = first or error
            failed.append(entry)
    return first if first is None or len(batch) == 1 else BatchError(failed, first)
