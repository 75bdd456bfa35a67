"""What replaces the clipping of a Keras optimizer for as long as ``fit`` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from keras import ops  # type: ignore[import-untyped] # it ships no types
from keras.backend import backend  # type: ignore[import-untyped] # it ships no types

from clipping.backends.keras_gradients import KerasGradients
from clipping.backends.keras_leaves import leaves_of
from clipping.backends.keras_ops import KERAS, read
from clipping.backends.keras_variables import StepVariables
from clipping.clipper import Clipper
from clipping.groups import arrange
from clipping.integrations.keras_checks import (
    check_trainable,
    inner,
    refuse_new_step,
    refuse_silent,
)
from clipping.integrations.keras_reading import Reading
from clipping.integrations.keras_report import Look
from clipping.integrations.keras_state import Carrier, hiding
from clipping.nonfinite import zeroed
from telemetry.extras import import_extra


class Hook:
    """Clipping as a part of an optimizer's step.

    It stands in for the method with which Keras's optimizers clip. That one is given unscaled and
    accumulated gradients, and what it assigns in a step that only accumulates does not last.

    Args:
        model: A compiled model that `check_model` allows.
        clipper: What decides.
        carrier: The place of its state in the optimizer's checkpoints.

    Attributes:
        raises: Whether non-finite gradients are an error.
        groups: How the trainable variables are grouped; only after the first step if the model is
            not built before.
    """

    def __init__(self, model: Any, clipper: Clipper, carrier: Carrier) -> None:
        self.raises = clipper.policy == "raise" and not clipper.dry_run
        self._model, self._clipper, self._carrier = model, clipper, carrier
        self._owner = inner(model.optimizer)
        self._variables: StepVariables | None = None
        self._reading: Reading | None = None
        self._undo: list[Callable[[], None]] = []
        self._present: Any = None
        self._called = False
        if not model.optimizer.built and model.built:
            model.optimizer.build(model.trainable_variables)
        if model.optimizer.built:
            self._prepare()
        self._start = int(read(self._owner.iterations))
        self._install()

    def start_epoch(self) -> None:
        """Take over a state that was loaded since the last epoch."""
        if self._reading is None or self._variables is None:
            return
        if self._reading.outdated:
            self._fill(self._variables)
        self._reading.start_epoch()

    def look(self, batch: int) -> Look | None:
        """What the step of a batch left behind; None if there was none."""
        return None if self._reading is None else self._reading.look(batch, self._present)

    def sync(self) -> None:
        """Bring the clipper up to date."""
        if self._reading is not None:
            self._reading.sync()

    def undo(self) -> None:
        """Leave the optimizer and the model as they were, and the clipper up to date."""
        undo, self._undo = self._undo, []
        if not undo:
            return
        try:
            self.sync()
        finally:
            for back in undo:
                back()
            for variable in self._ours():
                self._owner._untrack_variable(variable)  # noqa: SLF001 -- there is no public way
            self._model.train_function = None
            self._carrier.sync = None

    def check_installed(self) -> None:
        """Raise RuntimeError if the optimizer's steps are not clipped any more."""
        if not self._undo:
            refuse_new_step()

    def check_called(self) -> None:
        """Raise RuntimeError if the optimizer's steps never were clipped."""
        if not self._called and int(read(self._owner.iterations)) > self._start:
            refuse_silent(self._owner)

    def _prepare(self) -> StepVariables:
        """Make the variables, which a model that is not built yet has no shapes for."""
        trainable = list(self._owner._trainable_variables)  # noqa: SLF001 -- in the order of places
        check_trainable(self._model, trainable)
        self.groups = arrange(self._clipper, leaves_of(trainable, self._model))
        variables = StepVariables(self._owner, self._clipper, self.groups.rows)
        self._fill(variables)
        return variables

    def _fill(self, variables: StepVariables) -> None:
        self._reading = Reading(
            self._model, self._clipper, self.groups, variables, waits=self.raises
        )
        self._variables = variables

    def _install(self) -> None:
        owner, model, optimizer = self._owner, self._model, self._model.optimizer
        apply = owner._backend_apply_gradients  # noqa: SLF001 -- it alone is given the variables
        self._replace(owner, "_clip_gradients", self._clip)
        self._replace(
            owner,
            "_backend_apply_gradients",
            lambda gradients, variables: apply(gradients, self._seen(variables)),
        )
        self._replace(owner, "_backend_reset_gradient_accumulators", self._reset_accumulators)
        for saved in {id(x): x for x in (owner, optimizer)}.values():
            for name in ("save_own_variables", "load_own_variables"):
                self._replace(saved, name, hiding(getattr(saved, name), owner, self._ours))
        model.make_train_function(force=True)
        self._replace(model, "make_train_function", self._after_failure)
        self._carrier.sync = self.sync

    def _replace(self, target: Any, name: str, method: Callable[..., Any]) -> None:
        vars(target)[name] = method
        self._undo.append(lambda: vars(target).pop(name))

    def _after_failure(self, *args: Any, **kwargs: Any) -> Any:
        """Nobody but a new `fit` asks for a step: an exception has ended the one before."""
        self.undo()
        return self._model.make_train_function(*args, **kwargs)

    def _ours(self) -> list[Any]:
        return [] if self._variables is None else self._variables.all

    def _seen(self, variables: Sequence[Any]) -> Sequence[Any]:
        self._now = variables
        return variables

    def _clip(self, gradients: Sequence[Any]) -> list[Any]:
        """What the optimizer calls, with the gradients of the variables that it has `_seen`."""
        variables = self._variables
        if variables is None:
            with _outside_trace():
                variables = self._prepare()
        self._called = True
        places = [self._owner._get_variable_index(v) for v in self._now]  # noqa: SLF001 -- as above
        given = KerasGradients(self.groups, self._now, places, gradients)
        self._present = given.present()
        measured = given.measure(weights=self._clipper.weighs)
        decision, after = self._clipper.update(KERAS, variables.state(), measured)
        if self.raises:
            zeros = zeroed(KERAS, "skip", decision.nonfinite)
            scale = KERAS.where(zeros, 0.0, decision.scale)
            decision = decision._replace(zeroed=zeros, scale=scale)
        variables.remember(decision, after)
        return list(gradients) if self._clipper.dry_run else given.rescale(decision)

    def _reset_accumulators(self) -> None:
        """Keras on torch multiplies them by 0, which would leave NaN what it is for good."""
        for sum_ in self._owner._accumulated_gradients:  # noqa: SLF001 -- as above
            if sum_ is not None:
                sum_.assign(ops.zeros(sum_.shape, dtype=sum_.dtype))


def _outside_trace() -> Any:
    if backend() != "tensorflow":
        return nullcontext()
    return import_extra(
        "tensorflow", extra="tensorflow", feature="Keras on TensorFlow"
    ).init_scope()
