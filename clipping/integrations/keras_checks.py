"""What the Keras callback refuses."""

from __future__ import annotations

from typing import Any, Final

import keras  # type: ignore[import-untyped] # it ships no types

_OWN_CLIPPING: Final = ("clipnorm", "clipvalue", "global_clipnorm")


def inner(optimizer: Any) -> Any:
    """The optimizer that steps, inside a ``LossScaleOptimizer`` too."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def check_model(model: Any) -> None:
    """Refuse a compiled model whose steps cannot be clipped.

    Raises:
        ValueError: Its optimizer is a ``MultiOptimizer`` or clips by itself, or there are several
            replicas.
        RuntimeError: Another callback clips already.
    """
    owner = inner(model.optimizer)
    name = type(owner).__name__
    if not isinstance(owner, keras.optimizers.Optimizer) or hasattr(owner, "optimizers"):
        raise ValueError(
            f"ClipCallback clips for one optimizer, got {name}. Allowed: a "
            "keras.optimizers.Optimizer that is no MultiOptimizer, or a LossScaleOptimizer of one."
        )
    if "_clip_gradients" in vars(owner):
        raise RuntimeError(
            f"A ClipCallback is active on this {name}, so its gradients would be clipped twice. "
            "Allowed: one in callbacks=[...]."
        )
    _check_own_clipping(owner, name)
    _check_replicas(model)


def check_trainable(model: Any, variables: list[Any]) -> None:
    """Raise ValueError for a model without trainable variables."""
    if not variables:
        raise ValueError(
            f"Cannot clip a model without trainable variables, got {model.name!r}. "
            "Add layers, or set trainable=True and compile again."
        )


def refuse_new_step() -> None:
    """Raise the RuntimeError of a training step that was made without clipping."""
    raise RuntimeError(
        "Something in this fit has asked for a new training step (train_on_batch, or a fit "
        "inside a callback), and with it clipping has ended. Clip in a training loop of "
        "your own, or do without the inner one."
    )


def refuse_silent(owner: Any) -> None:
    """Raise the RuntimeError of an optimizer that never asks for its gradients to be clipped."""
    raise RuntimeError(
        f"{type(owner).__name__} steps without asking for its gradients to be "
        "clipped, so ClipCallback cannot. Allowed: Keras's optimizers, and subclasses that "
        "leave apply() as it is."
    )


def _check_own_clipping(owner: Any, name: str) -> None:
    own = {key: value for key in _OWN_CLIPPING if (value := getattr(owner, key, None))}
    if own:
        given = ", ".join(f"{key}={value!r}" for key, value in own.items())
        raise ValueError(
            f"{name} clips by itself ({given}), on top of ClipCallback. Leave that out, or do "
            "without the callback."
        )


def _check_replicas(model: Any) -> None:
    replicas = getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1)
    if replicas > 1:
        raise ValueError(
            f"ClipCallback cannot clip on {replicas} replicas of a tf.distribute strategy: each "
            "sees its own part of the gradient. Allowed: one replica; or Keras on JAX with "
            "keras.distribution, which computes the whole gradient."
        )
