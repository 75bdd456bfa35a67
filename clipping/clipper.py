"""What all clippers share: options, gates, the cut itself, and the state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

from clipping import state_dict
from clipping.memory import Memory
from clipping.nonfinite import zeroed
from clipping.records import Array, Decision, Ops, Policy, Scope, State, Window
from clipping.validation import check_choice, check_count, check_flag, check_number
from clipping.window import empty


@dataclass(frozen=True, kw_only=True, eq=False)
class Clipper(ABC):
    """Base of the clippers that hold gradient norms against a history of such norms.

    `init` and `update` are pure functions of their arguments and the options. Clipping a model
    keeps their state in the object, for `threshold_any` and `state_dict`.

    Args:
        scope: What forms a group: ``"global"``, the whole model.
        warmup_steps: How many optimizer steps are only observed.
        min_history: How many norms a group must have in its history before it is clipped.
        eps: Added to the norm that a threshold is divided by.
        guard_nans: False means ``on_nonfinite="propagate"``.
        on_nonfinite: What is done about NaN and infinite gradients. ``"skip"`` zeroes all
            gradients of the step, ``"zero"`` those of the offending groups, ``"propagate"`` leaves
            them, ``"raise"`` raises FloatingPointError and has to read the device. Such norms
            never enter the history.
        dry_run: Report what would be done, and leave the gradients alone.
    """

    algo: ClassVar[str]

    scope: Scope = "global"
    warmup_steps: int = 100
    min_history: int = 50
    eps: float = 1e-8
    guard_nans: bool = True
    on_nonfinite: Policy = "skip"
    dry_run: bool = False
    memory: Memory = field(default_factory=Memory, init=False, repr=False)

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_choice(owner, "scope", self.scope, get_args(Scope))
        check_count(owner, "warmup_steps", self.warmup_steps, 0)
        check_count(owner, "min_history", self.min_history, 0)
        check_number(owner, "eps", self.eps, "(0, inf)")
        check_flag(owner, "guard_nans", self.guard_nans)
        check_choice(owner, "on_nonfinite", self.on_nonfinite, get_args(Policy))
        check_flag(owner, "dry_run", self.dry_run)
        if not self.guard_nans and self.on_nonfinite not in ("skip", "propagate"):
            raise ValueError(
                f"{owner}: guard_nans=False means on_nonfinite='propagate', "
                f"got on_nonfinite={self.on_nonfinite!r} as well. Leave one of them out."
            )

    @property
    def policy(self) -> Policy:
        """What is done about gradients that are not finite."""
        return self.on_nonfinite if self.guard_nans else "propagate"

    @property
    @abstractmethod
    def history_size(self) -> int:
        """How many norms of each group are remembered."""

    @abstractmethod
    def estimate(
        self,
        ops: Ops,
        window: Window,
        norms: Array,
        observed: Array,
        cut: Callable[[Array], Array],
    ) -> tuple[Array, Window]:
        """The thresholds of this step, and the history after it.

        Args:
            ops: The array operations.
            window: The history before this step.
            norms: Of shape [groups], 0 where not observed.
            observed: Of shape [groups]: which norms are finite.
            cut: From thresholds to the factors that they would give.

        Returns:
            Thresholds of shape [groups], infinity where there is none, and the history.
        """

    def init(self, ops: Ops, groups: int) -> State:
        """The state before the first step."""
        return State(
            ops.zero_counts(()),
            ops.full((groups,), math.inf),
            empty(ops, groups, self.history_size),
        )

    def update(self, ops: Ops, state: State, norms: Array) -> tuple[Decision, State]:
        """One step: from the norms of the groups to what is done with them.

        Args:
            ops: The array operations.
            state: The state before this step; it is not written to.
            norms: L2 norms of the groups' gradients, of shape [groups]. NaN and infinity are
                dealt with by the policy.

        Returns:
            The decision, and the state after this step.
        """
        finite = ops.isfinite(norms)
        observed = ops.where(finite, norms, 0.0)
        seen = state.window.count
        ready = (state.steps >= self.warmup_steps) & (seen >= self.min_history)

        def cut(threshold: Array) -> Array:
            clipped = ready & (observed > threshold)
            return ops.where(
                clipped, ops.where(clipped, threshold, 0.0) / (observed + self.eps), 1.0
            )

        threshold, window = self.estimate(ops, state.window, observed, finite, cut)
        zeros = zeroed(ops, self.policy, ~finite)
        scale = ops.where(zeros, 0.0, cut(threshold))
        decision = Decision(norms, {"threshold": threshold}, scale, ~finite, zeros)
        return decision, State(state.steps + 1, threshold, window)

    def threshold_any(self) -> float:
        """The threshold of the last step; waits for the device that it is on.

        Returns:
            The norm above which the group is clipped, during the warm-up the one above which it
            would be; infinity before there is one.
        """
        if self.memory.held is None:
            return math.inf
        ops, _, state = self.memory.held
        return float(ops.to_host(state.threshold)[0])

    def state_dict(self) -> dict[str, Any]:
        """What the clipper has learned, as plain JSON data; waits for the device that it is on.

        Options are not in it. Loading it into a clipper of the same options continues
        bit-identically.
        """
        return state_dict.dump(self.algo, self.scope, self.memory.held)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave. The options stay this object's own.

        Args:
            state: From a clipper of the same algorithm and scope. Of a longer history than this
                object's the newest norms are kept.

        Raises:
            TypeError: It is no mapping.
            ValueError: It is of another algorithm or scope, or damaged. Nothing was changed.
        """
        self.memory.held = state_dict.load(state, self.algo, self.scope, self.history_size)
