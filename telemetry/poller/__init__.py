"""``performance.sample`` at an interval: host, process, GPUs, a queue, and probes of yours.

Example:
    >>> from telemetry import poller
    >>> with poller.start(interval=10.0, queue_depth=lambda: 3):
    ...     pass  # train
"""

from telemetry.poller.poller import Poller, start

__all__ = ["Poller", "start"]
