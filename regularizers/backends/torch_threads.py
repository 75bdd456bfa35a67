"""What torch keeps by thread, carried into another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import torch

AUTOCAST: Final = ("cpu", "cuda", "mps", "xpu")
"""The device types that may be in use where a program says ``torch.autocast``."""


def thread_state() -> Callable[[], AbstractContextManager[None]]:
    """What this thread has set, to be set in another one, for as long as a block lasts.

    That is whether gradients are recorded, inference mode, autocast, the default device, and the
    current CUDA stream and its device.
    """
    states: list[Callable[[], AbstractContextManager[Any]]] = [
        partial(torch.inference_mode, torch.is_inference_mode_enabled()),
        partial(torch.set_grad_enabled, torch.is_grad_enabled()),
        *(_autocast(kind) for kind in AUTOCAST if torch.is_autocast_enabled(kind)),
    ]
    if torch.get_default_device() != torch.device("cpu"):
        states.append(partial(torch.device, torch.get_default_device()))
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own
        states.append(partial(torch.cuda.stream, torch.cuda.current_stream()))

    @contextmanager
    def set_here() -> Iterator[None]:
        with ExitStack() as stack:
            for state in states:
                stack.enter_context(state())
            yield

    return set_here


def _autocast(kind: str) -> Callable[[], AbstractContextManager[Any]]:
    return partial(
        torch.autocast,
        kind,
        dtype=torch.get_autocast_dtype(kind),
        cache_enabled=torch.is_autocast_cache_enabled(),
    )
