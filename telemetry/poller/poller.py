"""A thread that looks at the machine at an interval."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from numbers import Real
from types import TracebackType
from typing import Any, Final, Self

from telemetry.ambient import ambient_metadata, context
from telemetry.log import log_error, logger
from telemetry.poller.exit import stop_at_exit, watch_exit
from telemetry.poller.failures import PROBE_FAILURE, Failures
from telemetry.poller.host import host_probes
from telemetry.poller.nvml import Gpus
from telemetry.poller.probes import Probe, Probes, check_names, own_probes, queue_probe
from telemetry.records import EventName
from telemetry.registry import Registry, check_registry, default_registry
from telemetry.values.jsonable import bounded_repr

SAMPLE: Final[EventName] = ("performance", "sample")
PATIENCE: Final = 5.0
"""Seconds that `Poller.stop` waits for a probe that does not answer."""

_KEPT: Final = ("run_id", "attempt")


class Poller:
    """Emits ``performance.sample`` at an interval until it is stopped: what `start` gives.

    A context manager that stops when it is left.
    """

    def __init__(
        self, interval: float, probes: list[Probe], gpus: Gpus | None, registry: Registry
    ) -> None:
        ambient = ambient_metadata() or {}
        # Not step and epoch, which go on without this thread.
        self._whose = {key: ambient[key] for key in _KEPT if key in ambient}
        self._interval = interval
        self._probes = probes
        self._gpus = gpus
        self._registry = registry
        self._failures = Failures(registry)
        self._asked = ""
        self._stopping = threading.Event()
        self._left_behind = False
        self._is_cut_short = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="trainbus-poller", daemon=True)
        try:
            watch_exit()
            self._thread.start()
        except RuntimeError as error:
            raise RuntimeError(
                f"telemetry.poller could not be started: {error}. A program that is ending takes "
                "no new thread: start it before, not in an atexit hook."
            ) from error
        stop_at_exit(self)

    @property
    def active(self) -> bool:
        """Whether it polls: not after `stop`, and not in a forked child."""
        return (
            os.getpid() == self._process and not self._stopping.is_set() and self._thread.is_alive()
        )

    def stop(self, timeout: float = PATIENCE) -> None:
        """Stop polling. Does nothing if it has stopped, or in a forked child.

        A sample that was begun is finished. A probe that does not answer is left behind, which is
        logged, and nothing is emitted of what it says later.

        Args:
            timeout: Seconds to wait for that.

        Raises:
            TypeError: It is no number.
            ValueError: It is negative or NaN.
        """
        _check_seconds("timeout", timeout, least=0)
        if not self.active:
            return
        self._stopping.set()
        if self._thread is threading.current_thread():
            return
        self._thread.join(min(timeout, threading.TIMEOUT_MAX))
        if self._thread.is_alive():
            self._left_behind = True
            logger.warning(
                "%s has not come back within %s s; the poller has stopped without it.",
                self._asked,
                timeout,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "active" if self.active else "stopped"
        return f"<Poller every {self._interval} s, {state}>"

    def _run(self) -> None:
        with context(**self._whose):
            due = time.monotonic()
            while True:
                if self._registry.enabled(SAMPLE):
                    self._sample_safely()
                now = time.monotonic()
                due = next_due(due, self._interval, now)
                if self._stopping.wait(min(due - now, threading.TIMEOUT_MAX)):
                    break
            if self._gpus is not None:
                self._gpus.close()

    def _sample_safely(self) -> None:
        try:
            self._sample()
        except BaseException as error:
            # Of a handler, from which the bus lets SystemExit and its like through: in this thread
            # it would end all samples, and nothing else.
            if not self._is_cut_short:
                log_error(
                    error,
                    "%s raised %s. The poller goes on; said again only after a whole sample.",
                    self._asked,
                    bounded_repr(error),
                )
            self._is_cut_short = True
        else:
            self._is_cut_short = False

    def _sample(self) -> None:
        values: dict[str, Any] = {}
        for probe in self._probes:
            self._asked = f"Probe {bounded_repr(probe.name)} of the poller"
            error = self._ask(probe, values)
            if self._left_behind:
                return
            if error is None:
                self._failures.works(probe)
            else:
                self._asked = f"A handler of {'.'.join(PROBE_FAILURE)}"
                self._failures.fails(probe, error)
        self._asked = f"A handler of {'.'.join(SAMPLE)}"
        if values:
            self._registry.execute(SAMPLE, values)

    def _ask(self, probe: Probe, values: dict[str, Any]) -> BaseException | None:
        """Add what a probe measures to the values; what it raised."""
        try:
            found = {key: value for key, value in probe.read().items() if value is not None}
            _check_new(found, values)
        except BaseException as error:
            # Whatever it is: it would end the thread, and with it all other probes.
            return error
        values |= found
        return None


def start(
    interval: float = 10.0,
    *,
    probes: Probes | None = None,
    queue_depth: Callable[[], float] | None = None,
    host: bool = True,
    gpu: bool = True,
    registry: Registry = default_registry,
) -> Poller:
    """Emit ``performance.sample`` now and then at an interval, from a thread of its own.

    It measures:

    - ``cpu_utilization`` of the host, and ``process_cpu_utilization`` of this process, of which 100
      is one core: both in percent, since the last sample, so the first has none;
    - ``memory_used_gb`` and ``memory_utilization`` of the host, ``process_memory_gb`` (resident)
      of this process; a GB is 10^9 bytes;
    - where NVML finds NVIDIA GPUs, ``gpu_utilization`` (the mean) and ``gpu_memory_used_gb`` (the
      sum) and, of several, ``gpu0_utilization``, ``gpu0_memory_used_gb``, ... of each;
    - ``queue_depth``, and what ``probes`` measure.

    The ``run_id`` and ``attempt`` of the `context` around the call are on the samples. While nobody
    hears them, nothing is measured. A probe that fails is announced by ``telemetry.probe.failure``
    and logged, and goes on being asked; that is said again only after it has worked. A forked child
    does not poll. At exit it is stopped before the handlers are closed.

    Args:
        interval: Seconds from one sample to the next. If the probes take longer, the next one
            follows at once.
        probes: Measurements of yours: functions by name, or one function that returns numbers by
            name. None as a value leaves it out.
        queue_depth: How many requests wait, such as ``queue.qsize``.
        host: Whether to look at the CPU and memory of host and process.
        gpu: Whether to look at GPUs.
        registry: The bus.

    Raises:
        MissingExtraError: psutil, for ``host``, or nvidia-ml-py, for ``gpu``, is not installed:
            ``pip install 'trainbus[poller]'``.
        TypeError: The interval is no number, or a probe cannot be called without arguments.
        ValueError: The interval is not above 0 or not finite, or two probes measure the same.
        RuntimeError: The process is ending, as in a hook of `atexit`.

    Example:
        >>> import queue
        >>> from telemetry import poller
        >>> waiting = queue.SimpleQueue()
        >>> with poller.start(interval=30, queue_depth=waiting.qsize, probes={"room": lambda: 7}):
        ...     pass  # train
    """
    _check_seconds("interval", interval)
    check_registry(registry)
    gpus = Gpus() if gpu else None
    asked = [
        *(host_probes() if host else ()),
        *([] if gpus is None else [gpus.probe]),
        *([] if queue_depth is None else [queue_probe(queue_depth)]),
        *([] if probes is None else own_probes(probes)),
    ]
    check_names(asked)
    return Poller(float(interval), asked, gpus, registry)


def next_due(due: float, interval: float, now: float) -> float:
    """When the next sample is due: those that were missed meanwhile are not made up for.

    Example:
        >>> next_due(10.0, 5.0, now=12.0), next_due(10.0, 5.0, now=33.0)
        (15.0, 33.0)
    """
    return max(due + interval, now)


def _check_new(found: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    both = sorted(found.keys() & values.keys())
    if both:
        raise ValueError(
            f"It measured {bounded_repr(both[0])}, which another probe measures already."
        )


def _check_seconds(what: str, seconds: object, *, least: float | None = None) -> None:
    bound = "above 0" if least is None else "of at least 0"
    message = f"{what} must be a finite number of seconds {bound}, got {bounded_repr(seconds)}"
    mend = f"Write {what}=10.0."
    if isinstance(seconds, bool) or not isinstance(seconds, Real):
        raise TypeError(f"{message} ({type(seconds).__name__}). {mend}")
    try:
        number = float(seconds)
    except OverflowError:
        number = math.inf
    fits = number > 0 if least is None else number >= least
    if not (fits and math.isfinite(number)):
        raise ValueError(f"{message}. {mend}")
