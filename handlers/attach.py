"""``handlers.attach``: a handler by its name, behind the wrappers that were asked for."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable
from typing import Any, Literal

from handlers import options as check
from handlers.across_ranks import AcrossRanks, elsewhere, reduced_metrics
from handlers.background import Background
from handlers.every import every as keep_every
from handlers.lifecycle import close_sink
from handlers.lookup import find_factory
from handlers.rank_filter import OffRank, rank_zero
from handlers.records import Delivery, Eager, Factory, Overflow, Ranks, Sink, Site
from handlers.sample import Sample
from handlers.sink_attachment import SinkAttachment
from handlers.where import Predicate
from handlers.where import where as keep_where
from telemetry import (
    ALL,
    HandlerExistsError,
    HandlerFunction,
    Pattern,
    Registry,
)
from telemetry.ranks import rank


def attach(
    name: str,
    /,  # a handler can have an option of that name, as "wandb" has
    *,
    id: Hashable = None,  # noqa: A002 -- the word of telemetry.attach and telemetry.detach
    events: Pattern | Iterable[Pattern] = ALL,
    where: Predicate | None = None,
    every: int = 1,
    sample: float = 1.0,
    ranks: Ranks = "zero",
    background: bool | None = None,
    queue_size: int = 10_000,
    overflow: Overflow = "drop_oldest",
    flush_timeout: float = 5.0,
    on_failure: Literal["detach", "keep"] = "detach",
    registry: Registry | None = None,
    **options: Any,
) -> SinkAttachment:
    """Attach a handler by its name. Detaching it flushes and closes it.

    The filters run in the emitter's thread, in this order: ``ranks``, ``where``, ``every``,
    ``sample``.

    Args:
        name: ``"console"``, ``"jsonl"``, ``"memory"``, or one that another distribution registers
            in the entry-point group ``trainbus.handlers``.
        id: The handler's id, by default its name.
        events: An event name or pattern, or several. By default everything.
        where: ``where(event, measurements, metadata)``: whether the handler gets the event.
        every: Of the events of one name, take the first and each ``every``-th after it.
        sample: The probability with which an event is taken: more than 0, at most 1.
        ranks: ``"zero"`` builds the handler on rank 0 of a distributed run only, ``"all"`` on all.
        background: Whether a worker thread delivers; None is the handler's own choice. With
            False, a worker still delivers the events that have a value on an accelerator.
        queue_size: How many events may wait for the worker.
        overflow: What becomes of an event when that many wait. What is dropped is announced by
            ``("telemetry", "handler", "overflow")``, at most once a second.
        flush_timeout: Seconds for which detaching, the end of the program and ``SIGTERM`` wait for
            the worker.
        on_failure: What happens when the handler raises; see ``telemetry.attach_many``.
        registry: The bus to hear, by default that of the functions of `telemetry`.
        **options: The handler's own.

    Returns:
        The attachment: ``.handler`` is what takes the events, ``.flush()`` waits for the worker.

    Raises:
        HandlerExistsError: The id is taken.
        TypeError: An option that the handler does not have, or an argument of a wrong type.
        ValueError: A handler that does not exist, or an argument of a wrong value.
        OSError: The handler cannot open what it writes to.

    Example:
        >>> import handlers, telemetry
        >>> loss_is_high = lambda event, measurements, metadata: measurements["loss"] > 1
        >>> memory = handlers.attach("memory", events=[("training", "step")], where=loss_is_high)
        >>> for step, loss in enumerate([2.5, 0.5]):
        ...     telemetry.execute(("training", "step"), {"loss": loss}, {"step": step})
        >>> [event.metadata["step"] for event in memory.handler.events]
        [0]
        >>> telemetry.detach("memory")
    """
    factory = find_factory(name)
    check.check_options(name, factory, options, _COMMON)
    check.check_where(where)
    check.check_count("every", every)
    check.check_sample(sample)
    check.check_ranks(ranks)
    check.check_delivery(background, queue_size, overflow, flush_timeout)
    # Whatever can be refused is refused above and in the rehearsal, so that a call that fails has
    # made no file, no connection and no thread.
    registry = check.registry_of(registry)
    site = Site(name if id is None else id, registry, check.events_of(events), ranks)
    _rehearse(site, on_failure)

    reduced = reduced_metrics(options)
    process_rank = rank()
    sink = _build(name, factory, site, process_rank, options)
    head: HandlerFunction = sink
    worker = None
    # Without filters where nothing is delivered: what is not built cannot fail either.
    built = not isinstance(sink, OffRank)
    delivery = _delivery(sink, background) if built else "direct"
    if delivery != "direct":
        worker = Background(
            site,
            sink,
            always=delivery == "background",
            queue_size=queue_size,
            overflow=overflow,
            flush_timeout=flush_timeout,
            stop_on_failure=on_failure == "detach",
        )
    if built:
        head = _filtered(_entrance(sink, worker, delivery), where, every, sample)
    if ranks == "zero" and process_rank is None:
        head = rank_zero(head)
    across = AcrossRanks(site, reduced, head, asks=built) if reduced else None
    heard = head if across is None else elsewhere
    try:
        bare = registry.attach_many(site.handler_id, site.events, heard, on_failure=on_failure)
    except Exception:
        close_sink(site, sink)
        raise
    if across is not None:
        bare = across.watched(bare)
    attachment = SinkAttachment(site, bare, sink, worker, flush_timeout=flush_timeout)
    if across is not None:
        across.start(attachment)
    return attachment


_COMMON = list(inspect.signature(attach).parameters)[1:-1]


def _rehearse(site: Site, on_failure: Literal["detach", "keep"]) -> None:
    """Raise what attaching would raise, before a file is opened for it."""
    Registry().attach_many(site.handler_id, site.events, lambda *_: None, on_failure=on_failure)
    if any(info.id == site.handler_id for info in site.registry.list_handlers()):
        raise HandlerExistsError(
            f"Handler id {site.handler_id!r} is already attached. "
            f"Choose another with id=..., or detach it first: "
            f"telemetry.detach({site.handler_id!r})."
        )


def _build(
    name: str, factory: Factory, site: Site, process_rank: int | None, options: dict[str, Any]
) -> Sink:
    if site.ranks == "zero" and process_rank:
        return OffRank(name, process_rank)
    sink = factory(site, **options)
    try:
        check.check_sink(name, sink)
    except Exception:
        close_sink(site, sink)
        raise
    return sink


def _delivery(sink: Sink, background: bool | None) -> Delivery:
    own: Delivery = getattr(sink, "delivery", "ordered")
    if background is None:
        return own
    if background:
        return "background"
    return "ordered" if own == "background" else own


def _entrance(sink: Sink, worker: Background | None, delivery: Delivery) -> HandlerFunction:
    """What is called in the emitter's thread."""
    entrance: Sink = sink if worker is None else worker
    if worker is not None and delivery == "eager" and isinstance(sink, Eager):
        sink.defer = worker.defer
        entrance = sink
    # Calling a bound method is faster than calling the object, by a twentieth of a JSON line.
    return entrance if inspect.isfunction(entrance) else entrance.__call__


def _filtered(sink: Sink, where: Predicate | None, every: int, sample: float) -> HandlerFunction:
    """The sink behind the filters; the last one that is put on is the first that is asked."""
    if sample < 1:
        sink = Sample(sink, sample)
    if every > 1:
        sink = keep_every(sink, every)
    if where is not None:
        sink = keep_where(sink, where)
    return sink
