"""The events of a loss that was computed by compiled code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import telemetry
from regularizers.backends import find_backend, snapshot
from regularizers.opaque import opaque
from regularizers.packing import REPORTED, Numbers, Skeleton, pack, unpack
from regularizers.protocols import Backend
from regularizers.records import CustomLossOutput, RegularizerOutput
from regularizers.trees import flatten, map_leaves, refill
from telemetry.values import to_python_many

REGULARIZER: Final = ("regularizer", "compute", "stop")
TOTAL: Final = ("custom_loss", "stop")


@opaque
def emit(output: CustomLossOutput) -> None:
    """Send the events of a loss that was computed by compiled code, once it has run.

    Code that is compiled (``jax.jit``, ``tf.function``) has no numbers when Python runs through
    it, so `custom_loss` emits nothing there. Return its output from the compiled function, and
    hand it over here: a ``regularizer.compute.stop`` event for each regularizer and
    ``custom_loss.stop`` are sent. They have no ``duration``. Called twice it sends them twice.

    Does nothing for an output whose events were sent when it was computed, so that the same code
    works with and without compilation.

    Args:
        output: What the compiled function returned. A single one is not waited for: measurements
            are arrays on the device. A stack (leading axes, as ``jax.lax.scan`` and ``jax.vmap``
            make them) is fetched in one copy, which waits, if anybody listens, and its steps or
            members are sent in order.

    Raises:
        TypeError: It is no output of `custom_loss`, or it is still being traced.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from regularizers import RegularizerSpec, custom_loss, emit, penalties
        >>> from telemetry.testing import capture
        >>> @jax.jit
        ... def step(logprobs):
        ...     spec = RegularizerSpec(penalties.l1, 0.5, "sparsity")
        ...     return custom_loss(None, logprobs, penalties.l2, regularizers=[spec])
        >>> with capture() as events:
        ...     emit(step(jnp.array([1.0, -2.0])))
        >>> [(".".join(event.event), event.measurements) for event in events]
        [('regularizer.compute.stop', {'value': Array(3., dtype=float32), \
'contribution': Array(1.5, dtype=float32)}), \
('custom_loss.stop', {'loss_total': Array(6.5, dtype=float32), \
'regularizer_total': Array(1.5, dtype=float32)})]
    """
    if not isinstance(output, CustomLossOutput):
        raise TypeError(
            f"regularizers.emit takes the output of custom_loss, got {output!r} "
            f"({type(output).__name__}). Return it from the compiled function."
        )
    if not output.reported:
        _check_numbers(output)
        _send(output)


def emit_when_run(output: CustomLossOutput, backend: Backend) -> None:
    """Have the compiled code send the events itself, each time it runs."""
    numbers, skeleton = pack(output, REPORTED)
    shape = map_leaves(lambda _: 0, numbers)  # without the tracers, which must not outlive it

    def send(*leaves: Any) -> None:
        _send(unpack(refill(shape, leaves), skeleton))

    backend.call_back(send, list(flatten(numbers).values()))


def _check_numbers(output: CustomLossOutput) -> None:
    total = vars(output)["loss_total"]
    backend = find_backend(total)
    if backend is not None and backend.is_abstract(total):
        raise TypeError(
            f"regularizers.emit got an output that {backend.name} is still tracing, which has no "
            "numbers. Return it from the compiled function and emit what that returns, or call "
            "custom_loss with live=True."
        )


def _send(output: CustomLossOutput) -> None:
    if not any(map(telemetry.enabled, (REGULARIZER, TOTAL))):
        return
    for one in _steps(output):
        for regularizer in one.regularizers.values():
            _send_regularizer(regularizer)
        _send_total(one)


def _send_regularizer(output: RegularizerOutput) -> None:
    held = vars(output)
    telemetry.execute(
        REGULARIZER,
        _known({name: held[name] for name in ("value", "contribution", "grad_norm")}),
        {
            "regularizer_name": output.name,
            "weight": held["weight"],
            "async": output.asynchronous,
        },
    )


def _send_total(output: CustomLossOutput) -> None:
    held = vars(output)
    telemetry.execute(TOTAL, _known({name: held[name] for name in REPORTED}), output.metadata)


def _known(measurements: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in measurements.items() if value is not None}


def _steps(output: CustomLossOutput) -> Iterator[CustomLossOutput]:
    numbers, skeleton = pack(output, REPORTED)
    # The compiled function may have been differentiated, and then they are part of a graph.
    known = map_leaves(snapshot, numbers)
    if not _is_stack(vars(output)["loss_total"]):
        yield unpack(known, skeleton)
        return
    leaves = enumerate(flatten(known).values())
    read = to_python_many([{str(index): leaf for index, leaf in leaves}])[0]
    yield from _unstacked(refill(known, read.values()), skeleton)


def _is_stack(total: Any) -> bool:
    return isinstance(total, list) or getattr(total, "shape", ()) != ()


def _unstacked(numbers: Numbers, skeleton: Skeleton) -> Iterator[CustomLossOutput]:
    one = unpack(numbers, skeleton)
    totals = vars(one)["loss_total"]
    if not isinstance(totals, list):
        yield one
        return
    for index in range(len(totals)):
        yield from _unstacked(_entry(numbers, index), skeleton)


def _entry(numbers: Any, index: int) -> Any:
    # Of nested tuples of what has been read: nested lists and numbers.
    if isinstance(numbers, tuple):
        return tuple(_entry(branch, index) for branch in numbers)
    return numbers[index] if isinstance(numbers, list) else numbers
