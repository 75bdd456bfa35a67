"""The Datadog handler of a run, which all its collectors share."""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Final, Protocol

from telemetry.fork import renew_in_child
from telemetry.packages import check_package
from telemetry.records import EventName
from telemetry.registry import Registry


class _Attached(Protocol):
    def detach(self) -> None: ...


class RunHandler:
    """The handler that sends the events of one run.

    Two of them would send everything twice, so that the collectors of a run have one together.
    """

    def __init__(self, registry: Registry, run_id: str) -> None:
        # By name: the bus knows no sink. What is not installed, or hidden by another file, is said.
        check_package("handlers")
        self._attachment: _Attached = importlib.import_module("handlers").attach(
            "datadog", id=f"datadog-{run_id}", where=_of_run(run_id), registry=registry
        )
        self.users = 0

    def detach(self) -> None:
        """Send what waits, and end."""
        self._attachment.detach()


class RunHandlers:
    """Those of all runs, by their bus."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.of_bus: weakref.WeakKeyDictionary[Registry, dict[str, RunHandler]] = (
            weakref.WeakKeyDictionary()
        )
        renew_in_child(self)

    def attach(self, registry: Registry, run_id: str) -> None:
        """Send the events of a run to Datadog, if nobody does yet.

        Raises:
            HandlerExistsError: Another handler has the id ``datadog-<run_id>``.
            MissingExtraError: The package datadog is not installed.
            ShadowedPackageError: Another file hides the package of the handlers.
            ValueError: A variable of the environment, such as ``DATADOG_API_KEY``, is wrong.
        """
        with self._lock:
            runs = self.of_bus.setdefault(registry, {})
            if run_id not in runs:
                runs[run_id] = RunHandler(registry, run_id)
            runs[run_id].users += 1

    def detach(self, registry: Registry, run_id: str) -> None:
        """Undo one `attach`; the last one detaches the handler."""
        with self._lock:
            handler = self.of_bus[registry][run_id]
            handler.users -= 1
            if handler.users == 0:
                del self.of_bus[registry][run_id]
        if handler.users == 0:
            handler.detach()

    def _renew(self) -> None:
        self._lock = threading.RLock()


HANDLERS: Final = RunHandlers()


def _of_run(run_id: str) -> Any:
    def is_of_run(
        event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> bool:
        return metadata.get("run_id") == run_id

    return is_of_run
