"""A run's metrics, put on the bus and kept in memory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from telemetry.arguments import check_count, check_mapping, check_name
from telemetry.collector.datadog import HANDLERS
from telemetry.collector.history import MetricsHistory
from telemetry.collector.operation import Operation
from telemetry.collector.summary import summary_of
from telemetry.emit.send import Number
from telemetry.records import EventName
from telemetry.registry import Registry, check_registry, default_registry
from telemetry.runs.identity import with_own_attempt
from telemetry.spans import NOTHING
from telemetry.values.jsonable import bounded_repr

MAX_OPERATIONS: Final = 1024
"""Names of operations of which the metadata are remembered."""
HISTORY_SIZE: Final = 10_000
_LAST: Final = ("loss", "grad_norm", "lr")


class MetricsCollector:
    """Takes in the metrics of one run: each call is an event on the bus and a record in memory.

    Its events carry ``run_id``, and ``user_id`` if there is one, besides the `context` around.
    It may be used from several threads. A value that is None is left out. Scalars of a device are
    handed over unread: no call waits for a device.

    Args:
        run_id: Which run.
        user_id: Whose run.
        enable_datadog: Attach the handler ``datadog`` for the events of this run, configured by
            its variables of the environment, until `close`. With options, attach it yourself
            instead: ``handlers.attach("datadog", ...)``.
        history_size: How many records `metrics_history` holds.
        registry: The bus.

    Attributes:
        run_id: Which run.
        user_id: Whose run.
        metrics_history: The last records; see `MetricsHistory`.

    Raises:
        TypeError: A name is no string, the size no number, or the bus none.
        ValueError: A name is empty, or the size is less than 1 or beyond what a sequence can have.
        MissingExtraError: The package datadog is wanted and not installed.

    Example:
        >>> import telemetry
        >>> with telemetry.MetricsCollector("run_123") as collector:
        ...     collector.collect_training_metrics(
        ...         loss=0.5, grad_norm=2.3, learning_rate=1e-4, step=100)
        ...     with collector.time_operation("optim_step"):
        ...         pass
        >>> summary = collector.get_metrics_summary()
        >>> summary["last_step"], summary["last_loss"], summary["num_metrics"]
        (100, 0.5, 2)
    """

    def __init__(
        self,
        run_id: str,
        user_id: str | None = None,
        enable_datadog: bool = False,
        *,
        history_size: int = HISTORY_SIZE,
        registry: Registry = default_registry,
    ) -> None:
        self.run_id = check_name("run_id", run_id)
        self.user_id = None if user_id is None else check_name("user_id", user_id)
        self.metrics_history = MetricsHistory(_check_size(history_size))
        self._registry = check_registry(registry)
        self._who = _given({"run_id": run_id, "user_id": user_id})
        self._operations: dict[str, Mapping[str, Any]] = {}
        self._last: dict[str, Mapping[str, Any]] = {}
        self._closed = False
        if enable_datadog:
            HANDLERS.attach(registry, run_id)
            self._datadog = True

    def collect_training_metrics(
        self,
        loss: Number | None,
        grad_norm: Number | None,
        learning_rate: Number | None,
        step: int,
        extra_metrics: Mapping[str, Number] | None = None,
    ) -> None:
        """Emit ``training.step``, with the learning rate as ``lr``.

        Args:
            loss: Training loss.
            grad_norm: L2 norm of the gradient.
            learning_rate: In use at this step.
            step: The optimizer step.
            extra_metrics: Other measurements, such as ``{"perplexity": 5.2}``.

        Raises:
            TypeError: The step is no number, or ``extra_metrics`` are no mapping.
            ValueError: The step is negative or not whole.
            RuntimeError: The collector is closed.
        """
        named = {"loss": loss, "grad_norm": grad_norm, "lr": learning_rate}
        check_count("step", step)
        kept = self._collect(("training", "step"), named, extra_metrics, {"step": step})
        for name in _LAST:
            if name in kept:
                self._last[name] = kept

    def collect_rl_metrics(
        self,
        step: int,
        policy_loss: Number | None = None,
        value_loss: Number | None = None,
        entropy: Number | None = None,
        kl_divergence: Number | None = None,
        clip_fraction: Number | None = None,
        advantage_mean: Number | None = None,
        advantage_std: Number | None = None,
        explained_variance: Number | None = None,
        reward_mean: Number | None = None,
        extra_metrics: Mapping[str, Number] | None = None,
    ) -> None:
        """Emit ``rl.step``.

        Args:
            step: The optimizer step.
            policy_loss: Surrogate loss of the policy.
            value_loss: Mean squared error of the value function.
            entropy: Of the policy, in nats.
            kl_divergence: From the reference policy, in nats.
            clip_fraction: Share of the clipped ratios, 0 to 1.
            advantage_mean: Mean advantage.
            advantage_std: Its standard deviation.
            explained_variance: Of the value function, at most 1.
            reward_mean: Mean reward.
            extra_metrics: Other measurements.

        Raises:
            TypeError: The step is no number, or ``extra_metrics`` are no mapping.
            ValueError: The step is negative or not whole.
            RuntimeError: The collector is closed.
        """
        named = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl_divergence": kl_divergence,
            "clip_fraction": clip_fraction,
            "advantage_mean": advantage_mean,
            "advantage_std": advantage_std,
            "explained_variance": explained_variance,
            "reward_mean": reward_mean,
        }
        check_count("step", step)
        self._collect(("rl", "step"), named, extra_metrics, {"step": step})

    def collect_performance_metrics(
        self,
        forward_backward_duration_ms: Number | None = None,
        optim_step_duration_ms: Number | None = None,
        queue_depth: int | None = None,
        gpu_utilization: Number | None = None,
        gpu_memory_used_gb: Number | None = None,
        extra_metrics: Mapping[str, Number] | None = None,
    ) -> None:
        """Emit ``performance.sample``.

        Args:
            forward_backward_duration_ms: Of a forward and backward pass, in milliseconds.
            optim_step_duration_ms: Of an optimizer step, in milliseconds.
            queue_depth: Waiting requests.
            gpu_utilization: 0 to 100.
            gpu_memory_used_gb: Memory in use, in GB.
            extra_metrics: Other measurements.

        Raises:
            TypeError: ``extra_metrics`` are no mapping.
            RuntimeError: The collector is closed.
        """
        named = {
            "forward_backward_duration_ms": forward_backward_duration_ms,
            "optim_step_duration_ms": optim_step_duration_ms,
            "queue_depth": queue_depth,
            "gpu_utilization": gpu_utilization,
            "gpu_memory_used_gb": gpu_memory_used_gb,
        }
        self._collect(("performance", "sample"), named, extra_metrics, NOTHING)

    def time_operation(self, operation_name: str) -> Operation:
        """The span ``performance.operation``, for ``with``, ``async with`` or as a decorator.

        Its duration is reported as ``performance.<operation_name>_duration_ms``.

        Args:
            operation_name: Such as ``"forward_backward"``.

        Raises:
            TypeError: The name is no string.
            ValueError: It is empty.
            RuntimeError: The collector is closed.

        Example:
            >>> collector = MetricsCollector("run_123")
            >>> @collector.time_operation("forward_backward")
            ... def forward_backward():
            ...     return "done"
            >>> forward_backward()
            'done'
            >>> list(collector.metrics_history[-1]["metrics"])
            ['forward_backward_duration_ms']
        """
        try:
            metadata = self._operations[operation_name]
        except (KeyError, TypeError):
            metadata = self._new_operation(operation_name)
        return Operation(self._registry, metadata, self.metrics_history)

    def get_metrics_summary(self) -> dict[str, Any]:
        """What has been collected so far, in plain numbers; also after `close`.

        It waits for a device whose values have not been read yet.

        Returns:
            ``run_id``, ``user_id``;
            ``num_metrics``: how many records were collected, those no longer in the history too;
            ``last_step``, ``last_loss``, ``last_grad_norm``, ``last_learning_rate``: what was given
            last, also if that is NaN, and None where nothing was;
            ``mean_loss``, ``min_loss``: of the finite training losses in the history, or None;
            ``latest``: the last value of every metric in the history, under the name that it is
            reported as, such as ``rl.kl_divergence``.

        Example:
            >>> summary = MetricsCollector("run_123").get_metrics_summary()
            >>> summary["num_metrics"], summary["last_step"], summary["latest"]
            (0, None, {})
        """
        who = {"run_id": self.run_id, "user_id": self.user_id}
        return {**who, **summary_of(self.metrics_history, dict(self._last))}

    def close(self) -> None:
        """Detach the Datadog handler, which sends what waits. A second time, do nothing.

        What is collected afterwards is refused; the history can still be read. Functions that
        `time_operation` has decorated go on and are timed on the bus, but no longer kept.
        """
        self._closed = True
        self._operations = {}
        self.metrics_history.end()
        try:
            del self._datadog  # atomic: of two threads that close at once, one finds nothing
        except AttributeError:
            return
        HANDLERS.detach(self._registry, self.run_id)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"<MetricsCollector of run {self.run_id!r}{closed}>"

    def _collect(
        self,
        event: EventName,
        named: Mapping[str, Any],
        extra: Mapping[str, Any] | None,
        place: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Keep and emit; what is returned is kept, and is read from a device by and by."""
        self._check_open()
        metrics = _given(named)
        if extra is not None:
            check_mapping(event, "extra_metrics", extra)
            metrics = {**_given(extra), **metrics}
        try:
            kept_place, kept = self.metrics_history.add(event, place, metrics)
            if place:
                self._last["step"] = kept_place
        finally:  # whatever becomes of the history, the bus has the event
            self._registry.execute(event, metrics, with_own_attempt({**place, **self._who}))
        return kept

    def _new_operation(self, name: str) -> Mapping[str, Any]:
        operations = self._operations  # before it is known to be open: `close` leaves an empty one
        self._check_open()
        metadata = {**self._who, "operation": check_name("operation_name", name)}
        if len(operations) >= MAX_OPERATIONS:
            operations.clear()
        operations[name] = metadata
        return metadata

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(
                f"The collector of run {self.run_id!r} is closed and takes no more metrics. Make a "
                f"new one: telemetry.create_metrics_collector({self.run_id!r})."
            )


def create_metrics_collector(
    run_id: str, user_id: str | None = None, enable_datadog: bool = False
) -> MetricsCollector:
    """A `MetricsCollector` on the bus of the functions of `telemetry`.

    Args:
        run_id: Which run.
        user_id: Whose run.
        enable_datadog: Attach the handler ``datadog`` for the events of this run.

    Raises:
        TypeError: A name is no string.
        ValueError: A name is empty.
        MissingExtraError: The package datadog is wanted and not installed.

    Example:
        >>> collector = create_metrics_collector(run_id="run_123", user_id="user_456")
        >>> collector.collect_rl_metrics(step=100, kl_divergence=0.01, entropy=None)
        >>> collector.get_metrics_summary()["latest"]
        {'rl.kl_divergence': 0.01}
    """
    return MetricsCollector(run_id, user_id, enable_datadog)


def _check_size(size: int) -> int:
    check_count("history_size", size, least=1)
    if int(size) > sys.maxsize:
        raise ValueError(f"history_size must be at most {sys.maxsize}, got {bounded_repr(size)}.")
    return int(size)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
