"""What Keras tells no callback: that a ``fit``, ``evaluate`` or ``predict`` has failed.

``keras.Model.fit``, ``evaluate`` and ``predict`` are wrapped, once for all models: calls without a
callback that listens only pass through.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from telemetry.extras import import_extra

FEATURE: Final = {"extra": "keras", "feature": "telemetry.integrations.keras"}
_STAGES: Final = ("fit", "evaluate", "predict")
_VALIDATION: Final = "_use_cached_eval_dataset"
_LOCK: Final = threading.Lock()


class Watcher(Protocol):
    """A callback that wants to know."""

    def watch(
        self, stage: str, model: Any, arguments: dict[str, Any], act: Callable[[], Any]
    ) -> Any:
        """Report ``act()``, which is the call of a model's method, and return what it returns."""
        ...


def watch_models(kind: type[Any]) -> None:
    """Let the callbacks of all models know of whatever ends a method of theirs.

    Args:
        kind: The class of the callbacks, which is a `Watcher`.
    """
    model = import_extra("keras", **FEATURE).Model
    with _LOCK:
        for stage in _STAGES:
            original = getattr(model, stage)
            if not hasattr(original, "watches"):
                setattr(model, stage, _watched(original, stage, kind))


def callbacks_in(given: object) -> list[Any]:
    """The callbacks in what a model's method was given for ``callbacks``."""
    keras = import_extra("keras", **FEATURE)
    if given is None:
        return []
    if isinstance(given, keras.callbacks.CallbackList):
        given = given.callbacks
    return [each for each in keras.tree.flatten(given) if each is not None]


def _watched(original: Callable[..., Any], stage: str, kind: type[Any]) -> Callable[..., Any]:
    names = list(inspect.signature(original).parameters)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments = {**dict(zip(names[1:], args, strict=False)), **kwargs}
        watcher = None if _VALIDATION in arguments else _watcher_in(arguments, kind, stage)
        act = functools.partial(original, self, *args, **kwargs)
        return act() if watcher is None else watcher.watch(stage, self, arguments, act)

    vars(method)["watches"] = kind
    return method


def _watcher_in(arguments: dict[str, Any], kind: type[Any], stage: str) -> Watcher | None:
    given = arguments.get("callbacks")
    if given is None:
        return None
    found: list[Watcher] = [each for each in callbacks_in(given) if isinstance(each, kind)]
    if len(found) > 1:
        raise ValueError(
            f"callbacks of {stage} has {len(found)} of {kind.__name__}, so every event would come "
            f"{len(found)} times. Allowed: one."
        )
    return found[0] if found else None
