"""CPU and memory of the host and of this process, by psutil."""

from __future__ import annotations

from typing import Any, Final

from telemetry.extras import import_extra
from telemetry.poller.probes import Probe, Values

GB: Final = 10**9
"""Bytes."""


def host_probes() -> list[Probe]:
    """The probes ``cpu``, ``memory`` and ``process``.

    What the CPU did is measured from one time that it is asked to the next, so there is nothing to
    tell the first time (https://psutil.readthedocs.io/en/latest/#psutil.cpu_percent).

    Raises:
        MissingExtraError: psutil is not installed.

    Example:
        >>> sorted(host_probes()[1].read())
        ['memory_used_gb', 'memory_utilization']
    """
    psutil = import_extra("psutil", extra="poller", feature="telemetry.poller")
    process = psutil.Process()
    host, mine = _SinceLast(psutil.cpu_percent), _SinceLast(process.cpu_percent)

    def cpu() -> Values:
        return {"cpu_utilization": host.read()}

    def memory() -> Values:
        found = psutil.virtual_memory()
        used = found.total - found.available
        return {"memory_used_gb": used / GB, "memory_utilization": 100 * used / found.total}

    def of_process() -> Values:
        with process.oneshot():
            return {
                "process_cpu_utilization": mine.read(),
                "process_memory_gb": process.memory_info().rss / GB,
            }

    return [
        Probe("cpu", cpu, frozenset({"cpu_utilization"})),
        Probe("memory", memory, frozenset({"memory_used_gb", "memory_utilization"})),
        Probe("process", of_process, frozenset({"process_cpu_utilization", "process_memory_gb"})),
    ]


class _SinceLast:
    """A reading of psutil that begins with a meaningless 0."""

    def __init__(self, measure: Any) -> None:
        self._measure = measure
        self._begun = False

    def read(self) -> float | None:
        value = float(self._measure(interval=None))
        begun, self._begun = self._begun, True
        return value if begun else None
