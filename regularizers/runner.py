"""The custom loss: a base loss plus weighted regularizers, every term on the bus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from numbers import Integral, Real
from typing import Any, Final, cast

import telemetry
from regularizers.checks import (
    as_float,
    check_flag,
    check_model_id,
    check_step,
    check_timeout,
)
from regularizers.emission import emit_when_run
from regularizers.errors import RegularizerError
from regularizers.event_loop import run_all
from regularizers.functions import Function, require_gradients
from regularizers.opaque import opaque
from regularizers.problem import Given, Problem
from regularizers.protocols import Backend, GradFunction, LossFunction, Scalar
from regularizers.records import BaseLossOutput, CustomLossOutput, RegularizerOutput
from regularizers.regularize import Failure, Manner, regularize
from regularizers.spec import RegularizerSpec, check_specs
from regularizers.terms import evaluate
from regularizers.totals import Total
from regularizers.trees import Tree
from regularizers.weights import weight_at

SILENT: Final = telemetry.Registry()
"""Nobody listens to it: for code that is being compiled, and has no numbers to report."""


@opaque
class CustomLoss:
    """A base loss with weighted regularizers, to be computed in each step of a loop.

    What `custom_loss` takes and is the same in every step is given, and checked, once.

    Args:
        base_loss_fn: As for `custom_loss`, like the rest.
        regularizers: The terms that are added.
        model_id: For the events.
        track_grad_norms: Measure the L2 norm of each term's gradient and of the total's.
        parallel: Evaluate synchronous regularizers in a thread each.
        timeout: Seconds for each regularizer; None for no limit.
        base_grad_fn: On numpy, the gradient of ``base_loss_fn``.
        live: Let compiled code send its events itself.

    It may be called from several threads at once if each call is told its step: the counting is
    for one thread.

    Attributes:
        step: The step of the next call that is not told one: one more than that of the last which
            succeeded, 0 at first. Weights that are functions of the step are asked about it. Set
            it when training is resumed.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: A name is used twice, or the timeout is not above 0.

    Example:
        >>> import numpy as np
        >>> from regularizers import CustomLoss, RegularizerSpec, penalties, schedules
        >>> loss = CustomLoss(
        ...     lambda data, logprobs: -(data * logprobs).sum(),
        ...     [RegularizerSpec(penalties.l1, schedules.linear_warmup(0.1, steps=2), "sparsity")],
        ... )
        >>> data, logprobs = np.array([1.0, 2.0]), np.array([-1.0, -2.0])
        >>> outputs = [loss(data, logprobs) for _ in range(3)]
        >>> [output.regularizers["sparsity"].weight for output in outputs]
        [0.0, 0.05, 0.1]
    """

    def __init__(
        self,
        base_loss_fn: LossFunction,
        regularizers: Iterable[RegularizerSpec] = (),
        *,
        model_id: str | None = None,
        track_grad_norms: bool = False,
        parallel: bool = False,
        timeout: float | None = None,
        base_grad_fn: GradFunction | None = None,
        live: bool = False,
    ) -> None:
        self.step: float = 0
        self._specs = check_specs(regularizers)
        self._base = Function.of_base_loss(base_loss_fn, base_grad_fn)
        self._functions = [Function.of_regularizer(spec) for spec in self._specs]
        check_model_id(model_id)
        check_flag("track_grad_norms", track_grad_norms)
        check_flag("parallel", parallel)
        check_flag("live", live)
        self._timeout = check_timeout(timeout)
        self._model_id = model_id
        self._track = track_grad_norms
        self._parallel = parallel
        self._live = live

    def __call__(
        self, data: Any, logprobs: Tree, *, step: Scalar | None = None, wrt: Tree = None
    ) -> CustomLossOutput:
        """Compute the loss of one step, as `custom_loss` does.

        Args:
            data: As for `custom_loss`, like ``logprobs`` and ``wrt``.
            logprobs: A tensor or a tree of them, or a function of ``wrt``.
            step: Which step it is; None for the one after the last. In code that is compiled,
                which Python runs through once only, a weight that depends on it needs it told.
                Nothing is counted there. Nor is a tensor, because that would read it.
            wrt: Take gradients by these tensors instead.

        Returns:
            As `custom_loss`.

        Raises:
            TypeError: As `custom_loss`, like the rest.
            ValueError: A gradient cannot be had, or a loss has dimensions.
            RegularizerError: A regularizer failed or took too long.
        """
        given = Given.of(data, logprobs, wrt, track=self._track)
        compiler = given.compiler()
        if compiler is not None:
            return self._compute(given, step, compiler)
        now = self.step if step is None else step
        output = self._compute(given, now, None)
        if isinstance(now, Real):
            self.step = _next(now)
        return output

    @opaque
    def once(
        self, data: Any, logprobs: Tree, *, step: Scalar | None = None, wrt: Tree = None
    ) -> CustomLossOutput:
        """The same without counting, as `custom_loss`: for an evaluation in between.

        A weight that depends on the step needs it told.
        """
        given = Given.of(data, logprobs, wrt, track=self._track)
        return self._compute(given, step, given.compiler())

    def __repr__(self) -> str:
        base = getattr(self._base.call, "__qualname__", self._base.call)
        names = [spec.name for spec in self._specs]
        return f"<{type(self).__name__} of {base} with {names} at step {self.step}>"

    def _compute(
        self, given: Given, step: Scalar | None, compiler: Backend | None
    ) -> CustomLossOutput:
        check_step(step)
        if given.backend is not None:
            require_gradients(given.backend, [self._base, *self._functions])
        weights = [weight_at(spec, step) for spec in self._specs]
        bus = telemetry.default_registry if compiler is None else SILENT
        metadata = {
            "model_id": self._model_id,
            "data_count": _count(given.data),
            "regularizer_count": len(self._specs),
            "track_grad_norms": self._track,
        }
        threads = self._parallel and given.crosses_threads
        manner = Manner(bus, self._timeout, threads)
        with bus.span(("custom_loss",), metadata) as span:
            with given.open() as recording:
                problem = given.problem(recording)
                base = evaluate(self._base, problem)
                total = Total(problem, base)
                base_loss = BaseLossOutput(
                    value=base.value, grad_norm=base.grad_norm, custom=base.custom
                )
                del base  # with its gradient, which may be as large as the model
                outputs = self._regularize(problem, weights, total, manner)
            loss = total.loss()
            measurements = total.measure(loss)
            span.measure(measurements)
        output = CustomLossOutput(
            loss=loss,
            base_loss=base_loss,
            regularizers={output.name: output for output in outputs},
            grad=total.grad(),
            metadata=metadata,
            reported=compiler is None or self._live,
            **{"total_grad_norm": None, **measurements},
        )
        if compiler is not None and self._live:
            emit_when_run(output, compiler)
        return output

    def _regularize(
        self, problem: Problem, weights: list[Scalar], total: Total, manner: Manner
    ) -> list[RegularizerOutput]:
        terms = enumerate(zip(self._functions, weights, strict=True))
        outcomes = run_all(
            regularize(index, function, weight, problem, total, manner)
            for index, (function, weight) in terms
        )
        failures = {one.name: one.error for one in outcomes if isinstance(one, Failure)}
        if failures:
            raise RegularizerError(failures) from _cause(failures)
        return cast("list[RegularizerOutput]", outcomes)


@opaque
def custom_loss(
    data: Any,
    logprobs: Tree,
    base_loss_fn: LossFunction,
    *,
    regularizers: Iterable[RegularizerSpec] = (),
    step: Scalar | None = None,
    model_id: str | None = None,
    track_grad_norms: bool = False,
    parallel: bool = False,
    timeout: float | None = None,
    wrt: Tree = None,
    base_grad_fn: GradFunction | None = None,
    live: bool = False,
) -> CustomLossOutput:
    """Compute ``base + sum(weight * value)`` and say on the bus what each term amounts to.

    Each function is called once. With ``track_grad_norms`` each is also differentiated once; the
    total's gradient is the weighted sum of theirs. Nothing is read from a device: the events and
    the output hold tensors, which are read when somebody looks. For a loop, `CustomLoss` takes
    what is the same in every step once.

    Events: the span ``("custom_loss",)`` with metadata ``model_id``, ``data_count`` (``len(data)``,
    None if it has none), ``regularizer_count``, ``track_grad_norms``, whose stop measures
    ``loss_total``, ``regularizer_total`` and, if tracked, ``total_grad_norm``. In it, for each
    regularizer, the span ``("regularizer", "compute")`` with metadata ``regularizer_name``,
    ``weight``, ``async``, whose stop measures ``value``, ``contribution`` and, if tracked,
    ``grad_norm``.

    In code that is compiled (``jax.jit``, ``tf.function``) nothing is emitted, because there are no
    numbers yet: return the output from it and give it to `regularizers.emit`, or set ``live``.

    An infinite or NaN value goes into the total and the output as it is, also with weight 0, where
    it becomes NaN (numpy then warns, as ``numpy.errstate`` says).

    Args:
        data: Handed to every function.
        logprobs: Handed to every function: a tensor or a tree of them (dicts, lists, tuples).
            Gradients are taken by it, so on torch, if they are tracked, it requires grad. Or a
            function of ``wrt`` that computes it, which is called once.
        base_loss_fn: ``base_loss_fn(data, logprobs)`` returns a scalar, or
            ``(scalar, {metric: number})``.
        regularizers: The terms that are added.
        step: For weights that are functions of it.
        model_id: For the events.
        track_grad_norms: Measure the L2 norm of each term's gradient and of the total's, in
            float32 at least. A term through which the framework cannot differentiate is an error;
            one that does not depend on ``logprobs`` has norm 0.
        parallel: Evaluate synchronous regularizers in a thread each, which pays where they wait or
            are long. In the caller's thread all the same where a framework's tape or trace does not
            cross threads: TensorFlow, and JAX inside a transformation.
        timeout: Seconds for each regularizer; None for no limit. A thread that overran goes on by
            itself, and what comes of it is thrown away. What runs in the caller's thread cannot be
            stopped: that it took too long is found when it returns.
        wrt: Take gradients by these tensors instead, such as ``model.parameters()``. They leave
            every ``.grad`` alone. Not on numpy. On jax and tensorflow, which keep no graph of what
            was computed before, ``logprobs`` has to be a function of them. Without
            ``track_grad_norms`` used only for that.
        base_grad_fn: On numpy, the gradient of ``base_loss_fn`` by ``logprobs``: ``(data,
            logprobs) -> tree``. Other frameworks differentiate by themselves and do not call it.
        live: Let compiled code send its events itself each time it runs, by a callback to Python.
            Costs about 100 us a call, and what `telemetry.context` says is not on them.

    Returns:
        The loss, differentiable in the caller's framework, and the metrics. On numpy, which does
        not differentiate, ``.grad`` is the total's gradient if gradients are tracked.

    Raises:
        TypeError: An argument is of a wrong type, a function cannot take two arguments or returns
            no real scalar, a metric is no number, or ``base_loss_fn`` has to be awaited.
        ValueError: A name is used twice, a weight or timeout is out of range, a weight needs a
            step, a gradient cannot be had, or a loss has dimensions.
        RegularizerError: A regularizer failed or took too long; the others ran all the same. What
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
    loss = CustomLoss(
        base_loss_fn,
        regularizers,
        model_id=model_id,
        track_grad_norms=track_grad_norms,
        parallel=parallel,
        timeout=timeout,
        base_grad_fn=base_grad_fn,
        live=live,
    )
    return loss.once(data, logprobs, step=step, wrt=wrt)


def _next(step: Real) -> float:
    return int(step) + 1 if isinstance(step, Integral) else as_float(step) + 1


def _cause(failures: Mapping[str, BaseException]) -> BaseException:
    errors = list(failures.values())
    return errors[0] if len(errors) == 1 else BaseExceptionGroup("regularizers failed", errors)


def _count(data: object) -> int | None:
    if not isinstance(data, Sized):
        return None
    try:
        return len(data)
    except TypeError:
        return None  # tensors of no dimensions have a __len__ that raises
