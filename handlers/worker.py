"""A worker thread, and what the errors of a sink are there."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Worker(threading.Thread):
    """A thread of ours, which must not wait for room in a queue: it is what makes room."""


def on_worker() -> bool:
    """Whether this thread is a worker."""
    return isinstance(threading.current_thread(), Worker)


def failure_of(call: Callable[[], object]) -> Exception | None:
    """What a sink raised; on a worker, as the failure that it is there.

    Example:
        >>> failure_of(lambda: 1 / 0), failure_of(lambda: 1)
        (ZeroDivisionError('division by zero'), None)
    """
    try:
        call()
    except Exception as error:
        return error
    except BaseException as error:
        if not on_worker():
            raise
        # It would end the thread, and with it all that comes later.
        failure = RuntimeError(f"sink raised {error!r}")
        failure.__cause__ = error
        return failure
    return None
