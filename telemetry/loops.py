"""Plain training loops: `track` says which step it is, and how long each took."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

from telemetry.arguments import check_count
from telemetry.passes import Loop, Pass
from telemetry.registry import Registry, check_registry, default_registry
from telemetry.values import to_python

Batch = TypeVar("Batch")


class Track(Generic[Batch]):
    """The batches of an epoch, for ``for`` and ``async for``: what `track` gives.

    Iterated over again it is the next epoch, whose steps are counted on. A pass that is left in its
    first step, as ``next(iter(...))`` does, counts for nothing.
    """

    def __init__(self, batches: Iterable[Batch] | AsyncIterable[Batch], loop: Loop) -> None:
        self._batches = batches
        self._loop = loop

    @property
    def epoch(self) -> int | None:
        """Which epoch it is, counted from 1; None if that was not said."""
        return self._loop.epoch

    @property
    def step(self) -> int:
        """The optimizer step in progress, or else the last one, counted from 1."""
        return self._loop.step

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole run; None if they are not known, or there are more."""
        return self._loop.total_at(self._loop.step)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave what is done inside the block, such as an evaluation, out of the steps' times.

        Example:
            >>> from telemetry import track
            >>> batches = track([[1, 2], [3, 4]])
            >>> for batch in batches:
            ...     with batches.pause():
            ...         pass  # evaluate the model
        """
        watch = self._loop.watch
        watch.pause()
        try:
            yield
        finally:
            watch.resume()

    def __iter__(self) -> Iterator[Batch]:
        steps = Pass(self._loop)
        try:
            steps.wait()
            for batch in cast("Iterable[Batch]", self._batches):
                steps.work(batch)
                yield batch
                steps.wait()
            steps.end()
        finally:
            steps.leave()

    def __aiter__(self) -> AsyncIterator[Batch]:
        return _Asynchronous(aiter(cast("AsyncIterable[Batch]", self._batches)), Pass(self._loop))

    def __repr__(self) -> str:
        epoch = "" if self.epoch is None else f"epoch {self.epoch}, "
        total = "" if self.total_steps is None else f" of {self.total_steps}"
        return f"<track of {type(self._batches).__name__}: {epoch}step {self.step}{total}>"


# Not Track[Batch]: the cache of typing would keep the class, and by its module the bus and its
# handlers, from being finalized when the interpreter ends.
class SizedTrack(Track):  # type: ignore[type-arg] # see above
    """The batches of something that knows how many it has."""

    def __len__(self) -> int:
        return len(cast("Any", self._batches))


class _Asynchronous(AsyncIterator[Batch]):
    """The same for ``async for``.

    No generator: one that a ``break`` leaves is closed by the event loop, some time later and in
    another context.
    """

    def __init__(self, batches: AsyncIterator[Batch], steps: Pass) -> None:
        self._batches = batches
        self._steps = steps

    async def __anext__(self) -> Batch:
        steps = self._steps
        if steps.left:
            raise StopAsyncIteration
        try:
            steps.wait()
            batch = await anext(self._batches)
        except StopAsyncIteration:
            steps.end()
            steps.leave()
            raise
        except BaseException:
            steps.leave()
            raise
        steps.work(batch)
        return batch

    def __del__(self) -> None:
        self._steps.leave()  # at once when a loop is left: nobody else holds this


def track(
    iterable: Iterable[Batch] | AsyncIterable[Batch],
    *,
    epoch: int | None = None,
    total_epochs: int | None = None,
    start: int | None = None,
    total_steps: int | None = None,
    accumulate: int = 1,
    batch_size: int | None = None,
    registry: Registry = default_registry,
) -> Track[Batch]:
    """Iterate over batches, unchanged, and say which step each belongs to.

    Every event inside the loop carries ``step`` and, where they are known, ``epoch`` and
    ``total_steps``: what a batch is drawn with, the loss, the clipping, ``training.step``. When the
    loop ends, in whatever way, the `context` is as it was before.

    After each step ``training.timing`` is emitted, if anybody listens: ``step_duration`` and
    ``data_duration`` in nanoseconds, ``batch_size`` and ``samples_per_second``. A step that the
    loop is left in, by ``break`` or an exception, has none.

    Args:
        iterable: A ``DataLoader``, a list, anything to iterate over, with ``async for`` too.
        epoch: Which epoch this is, counted from 1.
        total_epochs: Of the whole run. With the length it gives ``total_steps``.
        start: Optimizer steps that were made before. By default 0 in the first epoch, later
            ``epoch - 1`` times the steps of one epoch.
        total_steps: Of the whole run. By default ``total_epochs`` times the steps of one epoch; if
            no epoch and no start are given, those of this one; else not known. Steps beyond it
            have no ``total_steps``.
        accumulate: How many batches make an optimizer step. As in Lightning, Transformers and
            Accelerate, what is left at the end of an epoch makes a last, smaller step.
        batch_size: Items of each batch. By default it is looked for in the batch: the first
            dimension of its first array or tensor, or the length of a list of other things. Say it
            where a batch is a list of items that are tensors.
        registry: The bus.

    Returns:
        A `Track`, which has a length if the iterable has one.

    Raises:
        TypeError: It cannot be iterated over, or a number is none.
        ValueError: A number is too small or not whole; the epoch, or the step that it begins at,
            is not within the run; or that step cannot be known, because the iterable has no length.

    Example:
        >>> import telemetry
        >>> from telemetry.testing import capture
        >>> loader = [[1.0, 2.0], [3.0, 4.0]]
        >>> with capture(("training", "step")) as events:
        ...     for epoch in (1, 2):
        ...         for batch in telemetry.track(loader, epoch=epoch, total_epochs=2):
        ...             telemetry.emit_step(loss=sum(batch))
        >>> [(e.metadata["epoch"], e.metadata["step"], e.metadata["total_steps"]) for e in events]
        [(1, 1, 4), (1, 2, 4), (2, 3, 4), (2, 4, 4)]
    """
    _check_iterable(iterable)
    epoch = _count("epoch", epoch, least=1)
    total_epochs = _count("total_epochs", total_epochs, least=1)
    start = _count("start", start, least=0)
    total_steps = _count("total_steps", total_steps, least=1)
    size = _count("batch_size", batch_size, least=1)
    each = _whole("accumulate", accumulate, least=1)
    length = _length_of(iterable)
    per_epoch = None if length is None else -(-length // each)
    if total_steps is None:
        epochs = 1 if epoch is start is None else None
        total_steps = _times(total_epochs or epochs, per_epoch)
    if start is None:
        start = _start_of(iterable, epoch, per_epoch)
    _check_within(epoch, total_epochs, start, total_steps, length)
    loop = Loop(
        epoch=epoch,
        step=start,
        total_steps=total_steps,
        accumulate=each,
        batch_size=size,
        registry=check_registry(registry),
    )
    return Track(iterable, loop) if length is None else SizedTrack(iterable, loop)


def _start_of(iterable: object, epoch: int | None, per_epoch: int | None) -> int:
    if epoch is None or epoch == 1:
        return 0
    if per_epoch is None:
        raise ValueError(
            f"track cannot know at which step epoch {epoch} begins, because "
            f"{type(iterable).__name__} has no length. Give the optimizer steps made before as "
            "start=...: the `step` of the epoch before, as in "
            "batches = track(stream, epoch=1); ...; start=batches.step."
        )
    return (epoch - 1) * per_epoch


def _times(epochs: int | None, per_epoch: int | None) -> int | None:
    return epochs * per_epoch if epochs and per_epoch else None


def _count(what: str, value: object, *, least: int) -> int | None:
    return None if value is None else _whole(what, value, least=least)


def _whole(what: str, value: object, *, least: int) -> int:
    number = to_python(value)  # one from a checkpoint may be a tensor
    try:
        check_count(what, number, least=least)
    except ValueError as error:
        if what != "epoch" or number != 0:
            raise
        raise ValueError(
            f"{error} Epochs are counted from 1: range(1, n + 1), or epoch=epoch + 1."
        ) from None
    return int(cast("Any", number))


def _check_within(
    epoch: int | None,
    total_epochs: int | None,
    start: int,
    total_steps: int | None,
    length: int | None,
) -> None:
    if epoch is not None and total_epochs is not None and epoch > total_epochs:
        raise ValueError(
            f"epoch must be at most total_epochs, got epoch={epoch} and "
            f"total_epochs={total_epochs}. Epochs are counted from 1 over the whole run."
        )
    if total_steps is not None and start >= total_steps and length != 0:
        raise ValueError(
            f"{start} steps were made before, and total_steps is {total_steps}, so none is left. "
            "Give total_steps of the whole run, those made before included, or do not enter the "
            "loop."
        )


def _check_iterable(iterable: object) -> None:
    ways = ("__iter__", "__getitem__", "__aiter__")
    if isinstance(iterable, type) or not any(hasattr(iterable, way) for way in ways):
        raise TypeError(
            f"track iterates over batches, and {iterable!r} ({type(iterable).__name__}) cannot be "
            "iterated over. Give it a DataLoader, a list, or anything else that `for` takes."
        )


def _length_of(iterable: object) -> int | None:
    try:
        return len(cast("Any", iterable))
    except Exception:
        return None  # a DataLoader of a stream has a __len__ that raises, and others know others
