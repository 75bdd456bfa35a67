"""Clipping in the ``Trainer`` of Hugging Face transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from clipping import deferred
from clipping.autoclip import AutoClip
from clipping.checks import check_clipper
from clipping.clipper import Clipper
from clipping.integrations.one_step import clip_step, listener_of, refuse_after_acting
from clipping.records import OnMetrics
from telemetry.extras import import_extra

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import ExportableState

    from clipping.integrations import transformers_checks as checks
else:
    _FEATURE = {"extra": "transformers", "feature": "clipping.integrations.transformers"}
    _CALLBACKS = import_extra("transformers.trainer_callback", **_FEATURE)
    TrainerCallback, ExportableState = _CALLBACKS.TrainerCallback, _CALLBACKS.ExportableState
    checks = import_extra("clipping.integrations.transformers_checks", **_FEATURE)

__all__ = ["ClipCallback"]

_ACTING: Final = "acting"
_EARLIER: Final = "_clip_callbacks"
"""Where a trainer's state has the names of the callbacks that were asked before, in one training.

It is no field of the state, so it is not saved."""


class ClipCallback(TrainerCallback, ExportableState):
    """Clip before every optimizer step of a ``Trainer``, which must have ``max_grad_norm=0.0``.

    It acts in ``on_pre_optimizer_step``: after gradient accumulation, on unscaled gradients under
    ``fp16``, once per step. Events carry ``step``, the number under which the ``Trainer`` logs
    this step (``state.global_step`` once it is done), and ``epoch``, both counted from 1, unless a
    ``telemetry.context`` around the training says others. What the clipper has learned is
    in ``trainer_state.json``, and ``trainer.train(resume_from_checkpoint=...)`` restores it into
    this clipper.

    Several callbacks may run in one ``Trainer`` if all but the last have ``dry_run=True``, and
    other options each.

    Args:
        clipper: What decides; a new ``AutoClip()`` if none is given.
        on_metrics: Called with a `MetricsRecord` of each group in every step, whose numbers are
            Python's (which waits for the device). If it raises, that is announced like a failing
            handler and it is not called again in this training.

    Attributes:
        clipper: The clipper.

    Raises:
        TypeError: The clipper is none, or the callback is not callable. At the start of training:
            the model is wrapped in FSDP1.
        ValueError: At the start of training: ``max_grad_norm`` is None or above 0,
            ``restore_callback_states_from_checkpoint`` is set (the ``Trainer`` would replace this
            object by another), an earlier callback has a dry run with equal options, or the
            gradients are out of reach (DeepSpeed, an optimizer that steps during the backward
            pass). On resuming: the state in the checkpoint is of another clipper.
        RuntimeError: At the start of training: an earlier callback, or a `clip_context`, clips
            too. In a step: a ``GradScaler``'s scale is still in the gradients.

    A step raises what `clipping.apply` raises. The ``Trainer`` measures the gradient's norm before
    the callback is asked, which turns all gradients into NaN when one of them is not finite.

    Example:
        >>> import clipping
        >>> clipper = clipping.AutoClip(mode="percentile", percentile=95.0)
        >>> callback = ClipCallback(clipper)  # for Trainer(callbacks=[callback])
        >>> callback.state()["attributes"]["learned"]["steps"]
        0
    """

    def __init__(self, clipper: Clipper | None = None, on_metrics: OnMetrics | None = None) -> None:
        self.clipper = AutoClip() if clipper is None else clipper
        check_clipper(self.clipper)
        self._on_metrics = on_metrics
        self._listener = listener_of(on_metrics)

    def state(self) -> dict[str, Any]:
        """What the clipper has learned, for ``trainer_state.json``."""
        attributes = {"name": self._name, "learned": self.clipper.state_dict()}
        return {"args": {}, "attributes": attributes}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Refuse what would clip twice, or not at all; restore the clipper when it is a resume."""
        checks.check_arguments(args)
        checks.check_model(kwargs["model"])
        checks.check_optimizer(kwargs["optimizer"])
        self._join(vars(state).setdefault(_EARLIER, set()))
        saved = self._take(state)
        if saved and state.global_step > 0:
            self.clipper.load_state_dict(saved[-1]["attributes"]["learned"])
        self._listener = listener_of(self._on_metrics)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Clip."""
        checks.check_unscaled(kwargs["optimizer"])
        clip_step(
            kwargs["model"],
            self.clipper,
            self._listener,
            step=state.global_step + 1,
            epoch=int(state.epoch or 0) + 1,
        )

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Forget what has been saved, or the next checkpoint would have it once more."""
        self._take(state)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Send what is still on its way from a device."""
        deferred.settle_all()

    @property
    def _name(self) -> str:
        return repr(self.clipper) if self.clipper.dry_run else _ACTING

    def _join(self, earlier: set[str]) -> None:
        if _ACTING in earlier:
            refuse_after_acting()
        if self._name in earlier:
            raise ValueError(
                f"Two dry runs of this trainer have equal options, {self._name}, so a checkpoint "
                "could not tell their states apart. Allowed: dry runs that differ. Remove one, or "
                "change an option of it."
            )
        earlier.add(self._name)

    def _take(self, state: TrainerState) -> list[dict[str, Any]]:
        """Remove this callback's saved states from a trainer's state.

        The trainer keeps them by the name of the class: the state of one callback as it is, those
        of several in a list, to which it appends at every save.
        """
        stored: Any = state.stateful_callbacks
        found = stored.get(type(self).__name__, [])
        mine: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for entry in found if isinstance(found, list) else [found]:
            named = entry.get("attributes", {}).get("name")
            (mine if named == self._name else others).append(entry)
        stored[type(self).__name__] = others
        return mine
