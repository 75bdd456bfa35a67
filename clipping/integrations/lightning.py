"""Clipping in ``lightning.pytorch``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clipping import deferred
from clipping.autoclip import AutoClip
from clipping.checks import check_clipper
from clipping.clipper import Clipper
from clipping.integrations.one_step import clip_step, listener_of, refuse_after_acting
from clipping.records import OnMetrics
from telemetry.extras import import_extra

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer

    from clipping.integrations import lightning_checks as checks
else:
    _FEATURE = {"extra": "lightning", "feature": "clipping.integrations.lightning"}
    torch = import_extra("torch", **_FEATURE)
    Callback = import_extra("lightning.pytorch", **_FEATURE).Callback
    checks = import_extra("clipping.integrations.lightning_checks", **_FEATURE)

__all__ = ["ClipCallback"]


class ClipCallback(Callback):
    """Clip before every optimizer step of a ``Trainer``.

    It acts in ``on_before_optimizer_step``: after gradient accumulation, on unscaled gradients
    under ``16-mixed``, once per step, on the parameters of that optimizer and no others. A
    ``training_step`` that returns None is no step. Events carry ``step``, the one that is being
    made, and ``epoch``, both counted from 1, unless a ``telemetry.context`` around the fit says
    others. What the clippers have learned is in Lightning's checkpoints;
    ``trainer.fit(..., ckpt_path=...)`` restores it into these clippers.

    Several callbacks may run in one ``Trainer`` if all but the last have ``dry_run=True``.

    Args:
        clipper: What decides; a new ``AutoClip()`` if none is given. With several optimizers
            (manual optimization) a sequence of different ones, in the order of
            ``configure_optimizers``.
        on_metrics: Called with a `MetricsRecord` of each group in every step, whose numbers are
            Python's (which waits for the device). If it raises, that is announced like a failing
            handler and it is not called again in this fit.

    Attributes:
        clippers: The clippers, one for each optimizer.

    Raises:
        TypeError: A clipper is none, or the callback is not callable. At the start of a fit: an
            optimizer is ``LBFGS``.
        ValueError: The sequence is empty or has a clipper twice. At the start of a fit:
            ``gradient_clip_val`` is set, the module overrides ``configure_gradient_clipping``,
            there is not one clipper for each optimizer, an optimizer has parameters that are not
            the module's, or the gradients are out of reach (DeepSpeed, FSDP1, a fused optimizer
            under ``16-mixed``). On resuming: the state in the checkpoint is of other clippers.
        RuntimeError: At the start of a fit: an earlier callback, or a `clip_context`, clips too.
            After a step: Lightning was not told of it (``use_pl_optimizer=False``).

    A step raises what `clipping.apply` raises.

    Example:
        >>> import clipping
        >>> clipper = clipping.AutoClip(mode="percentile", percentile=95.0)
        >>> callback = ClipCallback(clipper)  # for Trainer(callbacks=[callback])
        >>> callback.state_dict()["clippers"][0]["steps"]
        0
    """

    def __init__(
        self,
        clipper: Clipper | Sequence[Clipper] | None = None,
        on_metrics: OnMetrics | None = None,
    ) -> None:
        clipper = AutoClip() if clipper is None else clipper
        self.clippers = tuple(clipper) if isinstance(clipper, list | tuple) else (clipper,)
        _check_clippers(self.clippers)
        self._on_metrics = on_metrics
        self._listener = listener_of(on_metrics)
        self._asked: set[int] = set()
        self._undo: list[Callable[[], None]] = []

    @property
    def acts(self) -> bool:
        """Whether any of its clippers changes gradients."""
        return not all(clipper.dry_run for clipper in self.clippers)

    @property
    def state_key(self) -> str:
        """Under what Lightning saves the state: dry runs are told apart by their options."""
        own = type(self).__qualname__
        return own if self.acts else f"{own}{self.clippers!r}"

    def state_dict(self) -> dict[str, Any]:
        """What the clippers have learned, for Lightning's checkpoint."""
        return {"clippers": [clipper.state_dict() for clipper in self.clippers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave into these clippers.

        Raises:
            ValueError: It is of other clippers. Nothing was changed.
        """
        states = state_dict["clippers"]
        if len(states) != len(self.clippers):
            raise ValueError(
                f"The checkpoint has the state of {len(states)} clippers, this ClipCallback has "
                f"{len(self.clippers)}. Allowed: as many, in the same order."
            )
        pairs = list(zip(self.clippers, states, strict=True))
        for clipper, state in pairs:
            replace(clipper).load_state_dict(state)  # into another: the last may not fit
        for clipper, state in pairs:
            clipper.load_state_dict(state)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would clip twice, or not at all."""
        checks.check_own_clipping(trainer, pl_module)
        checks.check_strategy(trainer)
        self._check_optimizers(trainer, pl_module)
        for callback in trainer.callbacks:  # type: ignore[attr-defined] # set in its constructor
            if callback is self:
                break
            if isinstance(callback, ClipCallback) and callback.acts:
                refuse_after_acting()
        self._listener = listener_of(self._on_metrics)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the optimizers, as long as there is training: a fit may have nothing to do."""
        hooks = [o.register_step_post_hook(self._check_asked) for o in trainer.optimizers]
        self._undo = [hook.remove for hook in hooks]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Clip."""
        self._asked.add(id(optimizer))
        if not any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
            return  # training_step returned None: this optimizer is about to do nothing
        index = [each is optimizer for each in trainer.optimizers].index(True)
        with _hidden(checks.parameters_of_others(optimizer, pl_module)):
            clip_step(
                pl_module,
                self.clippers[index],
                self._listener,
                step=trainer.global_step + 1,
                epoch=trainer.current_epoch + 1,
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers alone, and send what is still on its way from a device."""
        self._finish()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The same when the trainer leaves a fit without ending it, as its tuner does."""
        self._finish()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The same when the fit is interrupted."""
        self._finish()

    def _finish(self) -> None:
        while self._undo:
            self._undo.pop()()
        self._asked.clear()
        deferred.settle_all()

    def _check_asked(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        if id(optimizer) not in self._asked:
            name = type(optimizer).__name__
            raise RuntimeError(
                f"{name} has stepped without ClipCallback being asked, so this step was not "
                "clipped. Allowed: stepping what self.optimizers() returns. Leave out "
                "use_pl_optimizer=False, and in an overridden optimizer_step call "
                "optimizer.step(closure=optimizer_closure)."
            )
        self._asked.discard(id(optimizer))

    def _check_optimizers(self, trainer: Trainer, module: LightningModule) -> None:
        optimizers = trainer.optimizers
        if len(optimizers) != len(self.clippers):
            names = ", ".join(type(optimizer).__name__ for optimizer in optimizers)
            raise ValueError(
                f"ClipCallback has {len(self.clippers)} clippers, the model has "
                f"{len(optimizers)} optimizers ({names}). Allowed: one for each, since what one "
                "learns is of the parameters that it clips. Give a list in the order of "
                "configure_optimizers: ClipCallback([clipping.AutoClip(), ...])."
            )
        for optimizer in optimizers:
            checks.check_optimizer(optimizer, trainer)
            checks.parameters_of_others(optimizer, module)


def _check_clippers(clippers: tuple[Clipper, ...]) -> None:
    for clipper in clippers:
        check_clipper(clipper)
    if not clippers:
        raise ValueError(
            "ClipCallback needs a clipper, got an empty sequence. Allowed: one for each optimizer. "
            "Leave the argument out for a new AutoClip()."
        )
    if len(set(map(id, clippers))) < len(clippers):
        raise ValueError(
            f"ClipCallback was given the same clipper more than once, among {len(clippers)}. "
            "Allowed: one for each optimizer, since what one learns is of the parameters that it "
            "clips. Give as many different ones: ClipCallback([clipping.AutoClip(), ...])."
        )


@contextmanager
def _hidden(parameters: list[torch.Tensor]) -> Iterator[None]:
    """Take the gradients of parameters away for a while."""
    held = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
    for parameter, _ in held:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in held:
            parameter.grad = gradient
