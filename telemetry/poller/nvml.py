"""Utilization and memory of NVIDIA GPUs, by NVML, whose Python client is ``nvidia-ml-py``."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from telemetry.extras import import_extra
from telemetry.poller.host import GB
from telemetry.poller.probes import Probe, Values

UTILIZATION: Final = "gpu_utilization"
MEMORY: Final = "gpu_memory_used_gb"


class Gpus:
    """The GPUs of this host, as NVML sees them.

    NVML is loaded when it is first asked, by the thread that asks. A host without a driver or a GPU
    has nothing to tell, and is not asked again.

    Raises:
        MissingExtraError: ``nvidia-ml-py`` is not installed.
    """

    def __init__(self) -> None:
        self._nvml: Any = import_extra("pynvml", extra="poller", feature="telemetry.poller")
        self._handles: list[Any] | None = None
        # https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html
        self._absent = (
            self._nvml.NVMLError_LibraryNotFound,
            self._nvml.NVMLError_DriverNotLoaded,
        )

    @property
    def probe(self) -> Probe:
        """Asks all of them."""
        return Probe("gpu", self.read, frozenset({UTILIZATION, MEMORY}))

    def read(self) -> Values:
        """What they measure: the mean utilization, the sum of their memory, and each one's.

        Raises:
            NVMLError: It could not be read.
        """
        if self._handles is None:
            self._handles = self._open()
        try:
            utilizations = [self._utilization(handle) for handle in self._handles]
            memories = [self._memory(handle) for handle in self._handles]
        except self._nvml.NVMLError:
            self.close()  # a driver that was loaded anew wants to be asked anew
            raise
        known = [value for value in utilizations if value is not None]
        held = [value for value in memories if value is not None]
        values = {
            UTILIZATION: sum(known) / len(known) if known else None,
            MEMORY: sum(held) if held else None,
        }
        if len(self._handles) > 1:
            values |= {f"gpu{i}_utilization": value for i, value in enumerate(utilizations)}
            values |= {f"gpu{i}_memory_used_gb": value for i, value in enumerate(memories)}
        return values

    def close(self) -> None:
        """Let NVML go."""
        handles, self._handles = self._handles, None
        if handles:
            with contextlib.suppress(self._nvml.NVMLError):  # the driver may have gone before
                self._nvml.nvmlShutdown()

    def _open(self) -> list[Any]:
        nvml = self._nvml
        try:
            nvml.nvmlInit()
        except self._absent:
            return []
        try:
            count = nvml.nvmlDeviceGetCount()
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except BaseException:
            nvml.nvmlShutdown()
            raise
        if not handles:
            nvml.nvmlShutdown()
        return handles

    def _utilization(self, handle: Any) -> float | None:
        try:
            return float(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except self._nvml.NVMLError_NotSupported:
            return None  # of a GPU in MIG mode

    def _memory(self, handle: Any) -> float | None:
        try:
            return float(self._nvml.nvmlDeviceGetMemoryInfo(handle).used / GB)
        except self._nvml.NVMLError_NotSupported:
            return None  # of a GPU that has none of its own
