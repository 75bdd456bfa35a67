"""The custom loss: a base loss plus weighted regularizers, every term on the bus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Any

import telemetry
from regularizers.backends import snapshot
from regularizers.errors import RegularizerError
from regularizers.functions import Function, require_gradients
from regularizers.grads import Gradients
from regularizers.records import (
    BaseLossOutput,
    CustomLossOutput,
    GradFunction,
    LossFunction,
    RegularizerOutput,
    Scalar,
)
from regularizers.spec import RegularizerSpec, check_specs
from regularizers.terms import Problem, Term, evaluate
from regularizers.totals import Total
from regularizers.trees import Tree


def custom_loss(
    data: Any,
    logprobs: Tree,
    base_loss_fn: LossFunction,
    *,
    regularizers: Iterable[RegularizerSpec] = (),
    model_id: str | None = None,
    track_grad_norms: bool = False,
    wrt: Tree = None,
    base_grad_fn: GradFunction | None = None,
) -> CustomLossOutput:
    """Compute ``base + sum(weight * value)`` and say on the bus what each term amounts to.

    Each function is called once. With ``track_grad_norms`` each is also differentiated once; the
    total's gradient is the weighted sum of theirs. Nothing is read from a device: the events and
    the output hold tensors, which are read when somebody looks.

    Events: the span ``("custom_loss",)`` with metadata ``model_id``, ``data_count`` (``len(data)``,
    None if it has none), ``regularizer_count``, ``track_grad_norms``, whose stop measures
    ``loss_total``, ``regularizer_total`` and, if tracked, ``total_grad_norm``. In it, for each
    regularizer, the span ``("regularizer", "compute")`` with metadata ``regularizer_name``,
    ``weight``, ``async``, whose stop measures ``value``, ``contribution`` and, if tracked,
    ``grad_norm``.

    An infinite or NaN value goes into the total and the output as it is, also with weight 0, where
    it becomes NaN (numpy then warns, as ``numpy.errstate`` says).

    Args:
        data: Handed to every function.
        logprobs: Handed to every function: a tensor or a tree of them (dicts, lists, tuples).
            Gradients are taken by it, so on torch, if they are tracked, it requires grad.
        base_loss_fn: ``base_loss_fn(data, logprobs)`` returns a scalar, or
            ``(scalar, {metric: number})``.
        regularizers: The terms that are added.
        model_id: For the events.
        track_grad_norms: Measure the L2 norm of each term's gradient and of the total's, in
            float32 at least. A term through which the framework cannot differentiate is an error;
            one that does not depend on ``logprobs`` has norm 0.
        wrt: Take gradients by these tensors instead, such as ``model.parameters()``. They leave
            every ``.grad`` alone, except of tensors between ``wrt`` and ``logprobs`` that
            ``retain_grad()`` was called on. Not on numpy. Without ``track_grad_norms`` not used.
        base_grad_fn: On numpy, the gradient of ``base_loss_fn`` by ``logprobs``: ``(data,
            logprobs) -> tree``. Other frameworks differentiate by themselves and do not call it.

    Returns:
        The loss, differentiable in the caller's framework, and the metrics. On numpy, which does
        not differentiate, ``.grad`` is the total's gradient if gradients are tracked.

    Raises:
        TypeError: A function cannot take two arguments, or returns no scalar.
        ValueError: A name is used twice, a gradient cannot be had, or a loss has dimensions.
        RegularizerError: A regularizer failed; the others ran all the same. What
            ``base_loss_fn`` raises goes through unchanged.

    Example:
        >>> import numpy as np
        >>> from regularizers import RegularizerSpec, custom_loss, penalties
        >>> output = custom_loss(
        ...     np.array([1.0, 2.0]),
        ...     np.array([-1.0, -2.0]),
        ...     lambda data, logprobs: -(data * logprobs).sum(),
        ...     regularizers=[RegularizerSpec(fn=penalties.l1, weight=0.1, name="sparsity")],
        ... )
        >>> output.base_loss.value, output.regularizers["sparsity"].value
        (5.0, 3.0)
        >>> round(output.loss_total, 9)
        5.3
    """
    specs = check_specs(regularizers)
    base = Function.of_base_loss(base_loss_fn, base_grad_fn)
    functions = [Function.of_regularizer(spec) for spec in specs]
    gradients = Gradients.by(logprobs, wrt) if track_grad_norms else None
    if gradients is not None:
        require_gradients(gradients.backend, [base, *functions])
    problem = Problem(data, logprobs, gradients)
    metadata = {
        "model_id": model_id,
        "data_count": _count(data),
        "regularizer_count": len(specs),
        "track_grad_norms": track_grad_norms,
    }
    with telemetry.span(("custom_loss",), metadata) as span:
        base_term = evaluate(base, problem)
        outputs, total = _add_regularizers(zip(specs, functions, strict=True), problem, base_term)
        loss = total.base + total.regularizers
        measurements = total.measure(loss)
        span.measure(measurements)
    return CustomLossOutput(
        loss=loss,
        base_loss=BaseLossOutput(
            value=base_term.value, grad_norm=base_term.grad_norm, custom=base_term.custom
        ),
        regularizers=outputs,
        grad=total.grad(logprobs),
        **{"total_grad_norm": None, **measurements},
    )


def _add_regularizers(
    regularizers: Iterable[tuple[RegularizerSpec, Function]], problem: Problem, base: Term
) -> tuple[dict[str, RegularizerOutput], Total]:
    total = Total.of(base, problem.gradients)
    outputs: dict[str, RegularizerOutput] = {}
    failures: dict[str, Exception] = {}
    for spec, function in regularizers:
        try:
            term, contribution, outputs[spec.name] = _regularize(spec, function, problem)
        except Exception as error:
            failures[spec.name] = error
        else:
            total = total.plus(spec.weight, term, contribution)
    if failures:
        raise RegularizerError(failures) from _cause(failures)
    return outputs, total


def _regularize(
    spec: RegularizerSpec, function: Function, problem: Problem
) -> tuple[Term, Scalar, RegularizerOutput]:
    metadata = {"regularizer_name": spec.name, "weight": spec.weight, "async": False}
    with telemetry.span(("regularizer", "compute"), metadata) as span:
        term = evaluate(function, problem)
        contribution = spec.weight * term.scalar
        measurements = {"value": term.value, "contribution": snapshot(contribution)}
        weighted = None
        if term.grad_norm is not None:
            measurements["grad_norm"] = term.grad_norm
            weighted = spec.weight * term.grad_norm
        span.measure(measurements)
    output = RegularizerOutput(
        name=spec.name,
        weight=spec.weight,
        custom=term.custom,
        grad_norm_weighted=weighted,
        **{"grad_norm": None, **measurements},
    )
    return term, contribution, output


def _cause(failures: Mapping[str, Exception]) -> Exception:
    errors = list(failures.values())
    return errors[0] if len(errors) == 1 else ExceptionGroup("regularizers failed", errors)


def _count(data: object) -> int | None:
    if not isinstance(data, Sized):
        return None
    try:
        return len(data)
    except TypeError:
        return None  # tensors of no dimensions have a __len__ that raises
