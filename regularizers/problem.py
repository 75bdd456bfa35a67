"""What all terms of one loss are evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Self

from regularizers.backends import backend_for, find_backend, loaded
from regularizers.protocols import Backend, Recording
from regularizers.trees import Tree, flatten


class Problem(NamedTuple):
    """The arguments of every function, and how gradients are taken."""

    data: Any
    logprobs: Tree
    recording: Recording | None
    """None when gradients are not tracked."""
    backend: Backend | None
    """What takes them."""


class Given(NamedTuple):
    """What `custom_loss` was called on, checked; nothing is evaluated yet."""

    data: Any
    logprobs: Tree
    """Or a function of ``wrt``."""
    wrt: Tree
    backend: Backend | None
    """What takes gradients; None when they are not tracked."""

    @classmethod
    def of(cls, data: Any, logprobs: Tree, wrt: Tree, *, track: bool) -> Self:
        """Check what gradients are to be taken by.

        Raises:
            TypeError: A leaf is no tensor, or ``logprobs`` is a function of nothing.
            ValueError: No tensor can have a gradient, or ``wrt`` is given to a framework
                that does not differentiate.
        """
        if isinstance(wrt, Iterator):
            wrt = list(wrt)  # model.parameters() is a generator
        if callable(logprobs) and wrt is None:
            raise TypeError(
                f"custom_loss got the function logprobs={logprobs!r}, but not what it is a "
                "function of. Give that as wrt=, such as wrt=params, or give the tensors."
            )
        if not track:
            return cls(data, logprobs, wrt, None)
        tree = logprobs if wrt is None else wrt
        leaves = flatten(tree).values()
        if not leaves:
            raise ValueError(
                f"track_grad_norms=True, but there is no tensor to take gradients by in {tree!r}. "
                "Give logprobs, or the parameters: wrt=model.parameters()."
            )
        backend = backend_for(leaves)
        backend.check_variables(logprobs, wrt)
        return cls(data, logprobs, wrt, backend)

    def compiler(self) -> Backend | None:
        """What is compiling this very call, so that there are no numbers to report; mostly None."""
        tracing = (backend for backend in loaded() if backend.tracing())
        leaves = self._leaves
        return next((one for one in tracing if one.compiling(leaves(self.data))), None)

    @property
    def crosses_threads(self) -> bool:
        """Whether functions may be evaluated in other threads."""
        found = (find_backend(leaf) for leaf in self._leaves())
        return all(backend is None or backend.crosses_threads for backend in found) and not any(
            backend.tracing() for backend in loaded()
        )

    def open(self) -> AbstractContextManager[Recording | None]:
        """Begin to record what gradients are taken from."""
        if self.backend is None:
            return nullcontext()
        return self.backend.record(self.logprobs, self.wrt)

    def problem(self, recording: Recording | None) -> Problem:
        """With the logprobs computed."""
        if recording is not None:
            logprobs = recording.logprobs
        else:
            logprobs = self.logprobs(self.wrt) if callable(self.logprobs) else self.logprobs
        return Problem(self.data, logprobs, recording, self.backend)

    def _leaves(self, *more: Tree) -> list[Any]:
        trees = (None if callable(self.logprobs) else self.logprobs, self.wrt, *more)
        return [leaf for tree in trees for leaf in flatten(tree).values()]
