"""Evaluating one regularizer, in a span of its own, and adding it to the total."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import telemetry
from regularizers.backends import multiply, snapshot
from regularizers.evaluation import Evaluation
from regularizers.functions import Function
from regularizers.problem import Problem
from regularizers.protocols import Scalar
from regularizers.records import RegularizerOutput
from regularizers.terms import Term
from regularizers.totals import Part, Total
from regularizers.waiting import wait_for
from regularizers.weights import transfer


class Manner(NamedTuple):
    """How the regularizers of one loss are evaluated."""

    bus: telemetry.Registry
    """What their spans are told to."""
    timeout: float | None
    """Seconds for each."""
    threads: bool
    """Whether each has a thread of its own."""


class Failure(NamedTuple):
    """A regularizer's name, and what it raised."""

    name: str
    error: BaseException


Outcome: TypeAlias = RegularizerOutput | Failure


async def regularize(
    index: int, function: Function, weight: Scalar, problem: Problem, total: Total, manner: Manner
) -> Outcome:
    """Evaluate a regularizer once, and add it to the total.

    What is no ``Exception`` goes through, unless it is the cancellation of what is awaited.
    """
    known = snapshot(weight)  # it may be learned, and then is part of a graph
    metadata = {"regularizer_name": function.name, "weight": known, "async": function.is_async}
    evaluation = Evaluation(function, problem, manner.timeout, threads=manner.threads)
    await evaluation.turn()
    try:
        with manner.bus.span(("regularizer", "compute"), metadata) as span:
            try:
                term = evaluation.begin()
                if not isinstance(term, Term):
                    waiting = wait_for(term, evaluation.left())
                    del term  # a future holds its exception, whose traceback holds this frame
                    term = evaluation.settle(await waiting)
            finally:
                if evaluation.asynchronous:
                    span.annotate({"async": True})
            total.check(function.label, term.scalar)
            weight = transfer(weight, term.scalar)
            known = snapshot(weight)
            contribution = multiply(known, term.value)
            measurements = {"value": term.value, "contribution": contribution}
            if term.grad_norm is not None:
                measurements["grad_norm"] = term.grad_norm
            span.measure(measurements)
    except BaseException as error:
        if evaluation.failed_with(error):
            return Failure(function.name, error)
        raise
    total.take(index, Part(weight, term.scalar, term.gradient))
    return RegularizerOutput(
        name=function.name,
        weight=known,
        custom=term.custom,
        grad_norm_weighted=None if term.grad_norm is None else multiply(known, term.grad_norm),
        asynchronous=evaluation.asynchronous,
        scheduled=function.is_scheduled,
        **{"grad_norm": None, **measurements},
    )
