"""What all clippers share: options, gates, the cut itself, and the state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clipping import state_dict
from clipping.memory import Memory
from clipping.nonfinite import zeroed
from clipping.records import Array, Decision, Measured, Ops, Policy, Scope, State
from clipping.state_dict import Column
from clipping.validation import check_choice, check_count, check_flag, check_number

POLICIES: tuple[Policy, ...] = ("skip", "zero", "propagate", "raise")


@dataclass(frozen=True, kw_only=True, eq=False)
class Clipper(ABC):
    """Base of the clippers: what holds the norm of each group's gradient against a limit.

    `init` and `update` are pure functions of their arguments and the options, except that arrays
    of the host may be written to: a state is used once. Clipping a model keeps their state in the
    object, for `threshold_any` and `state_dict`.
    """

    algo: ClassVar[str]
    scopes: ClassVar[tuple[Scope, ...]] = ("global", "per_layer", "per_param")
    weighs: ClassVar[bool] = False
    """Whether the norms of the weights are wanted."""

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
        check_choice(owner, "scope", self.scope, self.scopes)
        check_count(owner, "warmup_steps", self.warmup_steps, 0)
        check_count(owner, "min_history", self.min_history, 0)
        check_number(owner, "eps", self.eps, "(0, inf)")
        check_flag(owner, "guard_nans", self.guard_nans)
        check_choice(owner, "on_nonfinite", self.on_nonfinite, POLICIES)
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

    def leaves_out(self, shape: Sequence[int]) -> bool:
        """Whether a parameter of some shape belongs to no group."""
        return False

    @abstractmethod
    def empty(self, ops: Ops, rows: int) -> Any:
        """The history before the first step."""

    @abstractmethod
    def seen(self, state: State) -> Array:
        """How many norms there are in the history, of shape [rows] or 0-d."""

    @abstractmethod
    def estimate(
        self,
        ops: Ops,
        history: Any,
        measured: Measured,
        observed: Array,
        cut: Callable[[Array], Array],
    ) -> tuple[Array, Any]:
        """The thresholds of this step, and the history after it.

        Args:
            ops: The array operations.
            history: As it was before this step.
            measured: The norms, 0 where not observed.
            observed: Of shape [rows]: which norms are there, and finite.
            cut: From thresholds to the factors that they would give.

        Returns:
            Thresholds of shape [rows], infinity where there is none, and the history.
        """

    def limits(self, threshold: Array, measured: Measured) -> dict[str, Array]:
        """What the norms were held against, by the name under which it is reported."""
        return {"threshold": threshold}

    def factor(self, ops: Ops, threshold: Array, norms: Array) -> Array:
        """What a gradient above its threshold is multiplied by."""
        return threshold / (norms + self.eps)

    def init(self, ops: Ops, rows: int) -> State:
        """The state before the first step."""
        return State(ops.zero_counts(()), ops.full((rows,), math.inf), self.empty(ops, rows))

    def update(self, ops: Ops, state: State, measured: Measured) -> tuple[Decision, State]:
        """One step: from the norms to what is done with the gradients.

        Args:
            ops: The array operations.
            state: The state before this step, which must not be used any more.
            measured: NaN and infinite norms are dealt with by the policy.

        Returns:
            The decision, and the state after this step.
        """
        finite = ops.isfinite(measured.norms)
        observed = finite if measured.present is None else finite & measured.present
        norms = ops.where(observed, measured.norms, 0.0)
        ready = (state.steps >= self.warmup_steps) & (self.seen(state) >= self.min_history)

        def cut(threshold: Array) -> Array:
            # To clip to 0 would be to stop learning, after gradients that were all 0 even for good.
            clipped = ready & (norms > threshold) & (threshold > 0)
            return ops.where(
                clipped, self.factor(ops, ops.where(clipped, threshold, 0.0), norms), 1.0
            )

        known = measured._replace(norms=norms)
        threshold, history = self.estimate(ops, state.history, known, observed, cut)
        if measured.present is not None:
            threshold = ops.where(measured.present, threshold, state.threshold)
        if measured.grouped is not None:
            threshold = ops.where(measured.grouped, threshold, math.inf)
        zeros = zeroed(ops, self.policy, ~finite)
        scale = ops.where(zeros, 0.0, cut(threshold))
        decision = Decision(measured.norms, self.limits(threshold, known), scale, ~finite, zeros)
        return decision, State(state.steps + 1, threshold, history)

    def threshold_any(self) -> float:
        """The threshold of the last step; waits for the device that it is on.

        Returns:
            The norm above which the first group that has one is clipped, during the warm-up the
            one above which it would be; infinity before there is one.
        """
        return self.memory.threshold()

    def state_dict(self) -> dict[str, Any]:
        """What the clipper has learned, as plain JSON data; waits for the device that it is on.

        Options are not in it. Loading it into a clipper of the same options continues
        bit-identically.
        """
        return state_dict.head(self.algo, self.scope) | self.memory.described(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave. The options stay this object's own.

        Args:
            state: From a clipper of the same algorithm and scope. Of a longer history than this
                object's the newest norms are kept; of a shorter one there are fewer than
                ``min_history`` asks for, maybe, and nothing is clipped until there are enough.

        Raises:
            TypeError: It is no mapping.
            ValueError: It is of another algorithm or scope, or damaged. Nothing was changed.
        """
        saved = state_dict.checked(state, self.algo, self.scope, self.columns)
        if saved is not None:
            saved = saved._replace(columns=self.accepted(saved.columns))
        self.memory.load(self, saved)

    @abstractmethod
    def columns(self, steps: int) -> Mapping[str, Column]:
        """What of the history is saved for each row after some number of steps."""

    def accepted(self, columns: Mapping[str, list[Any]]) -> Mapping[str, list[Any]]:
        """What is kept of checked columns; ValueError for those that do not fit each other."""
        return columns

    @abstractmethod
    def describe(self, ops: Ops, state: State) -> dict[str, list[Any]]:
        """The history as `columns` that JSON can hold, one entry per row."""

    @abstractmethod
    def restore(self, ops: Ops, rows: int, columns: Mapping[str, list[Any]], steps: int) -> State:
        """The state that `describe` described."""
