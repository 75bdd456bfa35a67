"""Clipping in ``lightning.pytorch``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from clipping import deferred
from clipping.autoclip import AutoClip
from clipping.checks import check_clipper
from clipping.clip_context import check_unhooked
from clipping.clipper import Clipper
from clipping.integrations.one_step import clip_step, listener_of, refuse_after_acting
from clipping.records import OnMetrics
from telemetry.extras import import_extra

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    _FEATURE = {"extra": "lightning", "feature": "clipping.integrations.lightning"}
    torch = import_extra("torch", **_FEATURE)
    Callback = import_extra("lightning.pytorch", **_FEATURE).Callback

__all__ = ["ClipCallback"]

_OUT_OF_REACH: Final = {
    "DeepSpeedStrategy": "the gradients are inside DeepSpeed's engine",
    "FSDPStrategy": "FSDP1 flattens the parameters of several layers into one",
}


class ClipCallback(Callback):
    """Clip before every optimizer step of a ``Trainer``.

    It acts in ``on_before_optimizer_step``: after gradient accumulation, on unscaled gradients
    under ``16-mixed``, once per step. A ``training_step`` that returns None is no step. Events
    carry ``step`` (``trainer.global_step``: how many steps came before) and ``epoch``, unless a
    ``telemetry.context`` around the fit says others. What the clippers have learned is in
    Lightning's checkpoints; ``trainer.fit(..., ckpt_path=...)`` restores it into these clippers.

    Several callbacks may run in one ``Trainer`` if all but the last have ``dry_run=True``.

    Args:
        clipper: What decides; a new ``AutoClip()`` if none is given. With several optimizers
            (manual optimization) a sequence, one for each in the order of
            ``configure_optimizers``: each then clips the parameters of its optimizer only.
        on_metrics: Called with a `MetricsRecord` of each group in every step, whose numbers are
            Python's (which waits for the device). If it raises, that is announced like a failing
            handler and it is not called again in this fit.

    Attributes:
        clippers: The clippers, one for each optimizer.

    Raises:
        TypeError: A clipper is none, or the callback is not callable. At the start of a fit: an
            optimizer is ``LBFGS``.
        ValueError: At the start of a fit: ``gradient_clip_val`` is set, the module overrides
            ``configure_gradient_clipping``, there is not one clipper for each optimizer, or the
            gradients are out of reach (DeepSpeed, FSDP1, a fused optimizer under ``16-mixed``).
            On resuming: the state in the checkpoint is of other clippers.
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
        for each in self.clippers:
            check_clipper(each)
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
            ValueError: It is of other clippers.
        """
        states = state_dict["clippers"]
        if len(states) != len(self.clippers):
            raise ValueError(
                f"The checkpoint has the state of {len(states)} clippers, this ClipCallback has "
                f"{len(self.clippers)}. Allowed: as many, in the same order."
            )
        for clipper, state in zip(self.clippers, states, strict=True):
            clipper.load_state_dict(state)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would clip twice, or not at all."""
        _check_own_clipping(trainer, pl_module)
        _check_strategy(trainer)
        self._check_optimizers(trainer)
        for callback in trainer.callbacks:  # type: ignore[attr-defined] # set in its constructor
            if callback is self:
                break
            if isinstance(callback, ClipCallback) and callback.acts:
                refuse_after_acting()
        self._listener = listener_of(self._on_metrics)
        hooks = [o.register_step_post_hook(self._check_asked) for o in trainer.optimizers]
        self._undo = [hook.remove for hook in hooks]

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Clip."""
        self._asked.add(id(optimizer))
        if not any(p.grad is not None for p in _parameters(optimizer)):
            return  # training_step returned None: this optimizer is about to do nothing
        alone = len(self.clippers) == 1
        index = 0 if alone else [o is optimizer for o in trainer.optimizers].index(True)
        own: AbstractContextManager[None] = nullcontext() if alone else _only(optimizer, pl_module)
        with own:
            clip_step(
                pl_module,
                self.clippers[index],
                self._listener,
                step=trainer.global_step,
                epoch=trainer.current_epoch,
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizers alone, and send what is still on its way from a device."""
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

    def _check_optimizers(self, trainer: Trainer) -> None:
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
            check_unhooked(optimizer)
            _check_optimizer(optimizer, trainer)


def _check_own_clipping(trainer: Trainer, module: LightningModule) -> None:
    if trainer.gradient_clip_val:
        raise ValueError(
            f"Trainer(gradient_clip_val={trainer.gradient_clip_val!r}) would clip again what "
            "ClipCallback has clipped. Allowed beside it: None, which is the default. Leave "
            "gradient_clip_val out."
        )
    defined_in = module.configure_gradient_clipping.__module__.partition(".")[0]
    if defined_in not in ("lightning", "pytorch_lightning"):
        raise ValueError(
            f"{type(module).__name__} overrides configure_gradient_clipping, which Lightning calls "
            "after ClipCallback has clipped. Allowed beside it: the method of LightningModule. "
            "Remove the override, or the callback."
        )


def _check_strategy(trainer: Trainer) -> None:
    for kind in type(trainer.strategy).__mro__:
        if kind.__name__ in _OUT_OF_REACH:
            raise ValueError(
                f"ClipCallback cannot clip under {kind.__name__}: {_OUT_OF_REACH[kind.__name__]}. "
                "Allowed: one device, DDP, and ModelParallelStrategy (FSDP2). Use one of these, or "
                "the clipping of that strategy without the callback."
            )


def _check_optimizer(optimizer: torch.optim.Optimizer, trainer: Trainer) -> None:
    name = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(
            f"ClipCallback cannot clip for {name}, which computes several gradients in one step. "
            "Allowed: optimizers that step on one gradient. Use another, or remove the callback."
        )
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise ValueError(
            f"This fused {name} takes the GradScaler's scale out of the gradients inside its step, "
            "where ClipCallback cannot clip them. Allowed under precision='16-mixed': optimizers "
            f"that are not fused. Give {name}(..., fused=False), or precision='bf16-mixed'."
        )


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[torch.nn.Parameter]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


@contextmanager
def _only(optimizer: torch.optim.Optimizer, module: LightningModule) -> Iterator[None]:
    """Hide the gradients of what an optimizer does not step: they are another one's."""
    own = set(map(id, _parameters(optimizer)))
    others = [(p, p.grad) for p in module.parameters() if p.grad is not None and id(p) not in own]
    for parameter, _ in others:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in others:
            parameter.grad = gradient
