"""Functions that a compiler runs as they are, and does not translate.

What they call (threads, event loops, spans) has no translation. The functions that are handed to
them are not translated either, unless they are compiled by themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
T = TypeVar("T")

AUTOGRAPH: Final = "autograph_info__"
"""What ``tf.autograph.experimental.do_not_convert`` leaves on a function."""

DYNAMO: Final = "torch._dynamo"
"""What ``torch.compile`` is made of; nothing is compiled before it is imported."""

DISABLED: Final = {
    "_torchdynamo_disable": True,
    "_torchdynamo_disable_msg": "it says on the bus what each call amounts to",
}
"""What ``torch.compiler.disable`` leaves on a function."""


def opaque(function: F) -> F:
    """Mark a function, or a class whose objects are called, without importing a framework."""
    marked: Any = function
    if isinstance(function, type):
        marked.__call__ = _outside_graphs(marked.__call__)
    else:
        marked = _outside_graphs(function)
    setattr(marked, AUTOGRAPH, {})
    return cast("F", marked)


def _outside_graphs(function: Callable[P, T]) -> Callable[P, T]:
    """Run without ``torch.compile``, between the graphs of the function that calls it."""
    disabled: Callable[P, T] | None = None

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal disabled
        if disabled is None:
            if DYNAMO not in sys.modules:
                return function(*args, **kwargs)
            disabled = sys.modules["torch"].compiler.disable(function)
        return disabled(*args, **kwargs)

    vars(call).update(DISABLED)
    return call
