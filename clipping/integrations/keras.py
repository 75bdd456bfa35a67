"""Clipping in Keras's ``fit``, on its TensorFlow, JAX and torch backends.

The decision is part of the compiled training step. What a clipper remembers and what it measured
are variables of the optimizer for as long as ``fit`` runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import telemetry
from clipping import emission
from clipping.autoclip import AutoClip
from clipping.checks import check_clipper
from clipping.clipper import Clipper
from clipping.on_metrics import Listener
from clipping.records import OnMetrics
from telemetry.extras import import_extra

if TYPE_CHECKING:
    import keras  # type: ignore[import-untyped] # it ships no types

    from clipping.integrations.keras_checks import check_model
    from clipping.integrations.keras_hook import Hook
    from clipping.integrations.keras_report import refusal, report
    from clipping.integrations.keras_state import ATTRIBUTE, Carrier, saved_state
else:
    _FEATURE = {"extra": "keras", "feature": "clipping.integrations.keras"}
    keras = import_extra("keras", **_FEATURE)
    import_extra("h5py", **_FEATURE)
    from clipping.integrations.keras_checks import check_model
    from clipping.integrations.keras_hook import Hook
    from clipping.integrations.keras_report import refusal, report
    from clipping.integrations.keras_state import ATTRIBUTE, Carrier, saved_state

__all__ = ["ClipCallback", "saved_state"]


class ClipCallback(keras.callbacks.Callback):  # type: ignore[misc] # keras has no types
    """Clip before every optimizer step of ``model.fit``.

    With ``gradient_accumulation_steps`` the accumulated gradient is clipped, in the step that
    steps. Under a ``LossScaleOptimizer`` the unscaled gradients are; a step that Keras skips
    because they overflowed is none for the clipper.

    Events are sent at the end of a batch, from what the step left behind: there is no start event
    and no duration. With ``steps_per_execution=n`` they are of the last of the n steps, but
    non-finite gradients in any of them are reported. On a CPU the numbers are Python's; on an
    accelerator they are scalars of the device, which is not waited for, and the non-finite event
    is left out (``grad_norm`` is not finite then). Only with gradient accumulation or under a
    ``LossScaleOptimizer``, where a batch may end without a step, is one small number read from the
    accelerator at the end of each batch, if there is a handler for the events.

    Events carry the ``epoch`` and, as ``step``, how many steps the optimizer has made with this
    one, both counted from 1, unless a ``telemetry.context`` around ``fit`` says others.

    What the clipper has learned is in the object after each epoch and when ``fit`` ends, and in
    whatever Keras saves of the optimizer: see `saved_state`. After an exception in ``fit``, which
    Keras tells no callback of, the next ``fit`` or save brings the object up to date; a ``fit``
    without a ClipCallback does not clip then either.

    Args:
        clipper: What decides; a new ``AutoClip()`` if none is given. With
            ``on_nonfinite="raise"`` such a step gets zeros for gradients, and FloatingPointError
            is raised at the end of its batch, which waits for the device.
        on_metrics: Called with a `MetricsRecord` of each group at the end of every batch, whose
            numbers are Python's (which waits for the device). If it raises, that is announced like
            a failing handler and it is not called again in that ``fit``.

    Raises:
        TypeError: The clipper or the callback cannot be used.

    ``fit`` raises ValueError when the optimizer clips by itself, is a ``MultiOptimizer``, runs on
    several replicas of a ``tf.distribute`` strategy, or the clipper does not fit the model, and
    RuntimeError for a second callback on the same optimizer.

    Example:
        >>> import clipping, keras, numpy as np
        >>> from clipping.integrations.keras import ClipCallback
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.1), loss="mse")
        >>> clipper = clipping.AutoClip(mode="percentile")
        >>> history = model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=2, verbose=0,
        ...                     callbacks=[ClipCallback(clipper)])
        >>> clipper.state_dict()["steps"]
        4
    """

    def __init__(self, clipper: Clipper | None = None, on_metrics: OnMetrics | None = None) -> None:
        super().__init__()
        self.clipper = AutoClip() if clipper is None else clipper
        check_clipper(self.clipper)
        self._on_metrics = on_metrics
        self._listener = None if on_metrics is None else Listener(on_metrics)
        self._hook: Hook | None = None
        self._epoch = 1

    def set_model(self, model: Any) -> None:
        """Let the optimizer's checkpoints carry the clipper's state, from now on."""
        super().set_model(model)
        optimizer = getattr(model, "optimizer", None)
        if optimizer is not None:
            setattr(optimizer, ATTRIBUTE, Carrier(self.clipper))

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Make clipping a part of the training step."""
        check_model(self._model)
        carrier = getattr(self._model.optimizer, ATTRIBUTE)
        self._hook = Hook(self._model, self.clipper, carrier)
        self._listener = None if self._on_metrics is None else Listener(self._on_metrics)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Take over what another callback has loaded since."""
        self._epoch = epoch + 1
        if self._hook is not None:
            self._hook.start_epoch()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report what the last step measured."""
        hook = self._hook
        if hook is None:
            return
        hook.check_installed()
        events = (emission.STOP, emission.GROUP, emission.NONFINITE)
        if not (hook.raises or self._listener or any(map(telemetry.enabled, events))):
            return
        look = hook.look(batch)
        if look is None:
            return
        report(hook.groups, self.clipper, look, self._listener, self._epoch)
        if hook.raises and look.offending.any():
            self.on_train_end()
            raise refusal(hook.groups, look)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Bring the clipper up to date."""
        if self._hook is not None:
            self._hook.check_called()
            self._hook.sync()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Leave the optimizer and the training step as they were."""
        if self._hook is not None:
            self._hook.undo()
        self._hook = None
