"""Types that every part of the package shares: a leaf module without imports of its own package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, NotRequired, Protocol, TypeAlias, TypedDict

Array: TypeAlias = Any
"""An array of whatever library the `Ops` at hand are written in."""

Key: TypeAlias = tuple[str, ...]
"""The name of a group of gradients, such as ``("global",)``."""

Mode: TypeAlias = Literal["auto", "percentile"]
Weighting: TypeAlias = Literal["ema", "window"]
Scope: TypeAlias = Literal["global", "per_layer", "per_param", "per_unit"]
"""What forms a group: see `clipping.groups`."""

Policy: TypeAlias = Literal["skip", "zero", "propagate", "raise"]
"""What is done about gradients that are not finite."""


class MetricsRecord(TypedDict):
    """What ``on_metrics`` is called with, once per group and step; all numbers are Python's.

    With scope ``"per_unit"`` the numbers are lists, one number per unit.
    """

    algo: str
    key: Key
    scope: str
    grad_norm: float
    threshold: NotRequired[float]
    target: NotRequired[float]
    weight_norm: NotRequired[float]
    scale: float
    clipped: bool


OnMetrics: TypeAlias = Callable[[MetricsRecord], object]


class Window(NamedTuple):
    """The last norms of each group.

    Attributes:
        ring: The norms, of shape [groups, size]; the n-th is in slot n % size.
        count: How many norms were ever taken in, of shape [groups], integers.
    """

    ring: Array
    count: Array


class Moments(NamedTuple):
    """Exponentially weighted moments of each group's norms, all of shape [groups].

    Attributes:
        mean: The weighted mean.
        variance: The weighted variance around it.
        weight: The sum of the weights; the newest norm's is 1.
        count: How many norms were ever taken in, integers.
    """

    mean: Array
    variance: Array
    weight: Array
    count: Array


class State(NamedTuple):
    """All that a clipper remembers between steps: a nested named tuple of arrays.

    Attributes:
        steps: How many optimizer steps it has seen, a 0-d integer.
        threshold: The threshold of the last step, of shape [rows]; infinity if there is none.
        history: What the clipper knows of earlier norms: a named tuple of arrays, or empty.
    """

    steps: Array
    threshold: Array
    history: Any


class Measured(NamedTuple):
    """What is known of the gradients of one step; every array is of shape [rows].

    A row is what is scaled by one factor: a group, under scope ``"per_unit"`` a unit, or a
    parameter that belongs to no group.

    Attributes:
        norms: L2 norms of the gradients; 0 for a row without any.
        weight_norms: L2 norms of the weights, if the clipper wants them.
        present: Which rows have a gradient in this step; None if all.
        grouped: Which rows belong to a group; None if all.
    """

    norms: Array
    weight_norms: Array | None = None
    present: Array | None = None
    grouped: Array | None = None


class Decision(NamedTuple):
    """What is to be done with the gradients of one step; every array is of shape [rows].

    Attributes:
        norms: L2 norms before clipping.
        limits: What the norms were held against, by the name under which it is reported.
        scale: Factors in [0, 1]; 0 for what is zeroed.
        nonfinite: Which norms are NaN or infinite.
        zeroed: Which rows are to be zeros (a factor would leave NaN what it is).
    """

    norms: Array
    limits: Mapping[str, Array]
    scale: Array
    nonfinite: Array
    zeroed: Array


class Later(Protocol):
    """A value on its way from a device."""

    def ready(self) -> bool:
        """Whether `value` would not wait."""
        ...

    def value(self) -> Any:
        """The value as a NumPy array."""
        ...


class Ops(Protocol):
    """The array operations that the maths is written in; one implementation per backend.

    Floating-point arrays have one dtype, integers another. Besides these methods the arrays
    have Python's arithmetic, comparison and logical operators, and basic indexing.
    """

    @property
    def on_host(self) -> bool:
        """Whether reading a value is free."""
        ...

    def full(self, shape: tuple[int, ...], value: float) -> Array:
        """Floats of one value."""
        ...

    def zero_counts(self, shape: tuple[int, ...]) -> Array:
        """Integers 0."""
        ...

    def slots(self, size: int) -> Array:
        """Integers 0 to size - 1."""
        ...

    def real(self, x: Array) -> Array:
        """Integers or booleans as floats."""
        ...

    def where(self, condition: Array, then: Array | float, otherwise: Array | float) -> Array:
        """Elementwise choice; Python numbers are taken for floats."""
        ...

    def isfinite(self, x: Array) -> Array:
        """Elementwise."""
        ...

    def sqrt(self, x: Array) -> Array:
        """Elementwise."""
        ...

    def exp(self, x: Array) -> Array:
        """Elementwise."""
        ...

    def sum(self, x: Array) -> Array:
        """Over the last axis, which stays with length 1; booleans are counted as integers."""
        ...

    def sum_before(self, x: Array) -> Array:
        """For each element the sum of those before it on the last axis; 0 for the first."""
        ...

    def argsort(self, x: Array) -> Array:
        """Along the last axis, ascending and stable."""
        ...

    def take(self, x: Array, index: Array) -> Array:
        """Elements along the last axis, by an index of the same number of axes."""
        ...

    def maximum(self, x: Array, least: float) -> Array:
        """Elementwise, at least a number."""
        ...

    def segment_norms(self, x: Array, segments: Any, count: int) -> Array:
        """The L2 norm of the elements of each segment.

        Args:
            x: Floats of shape [n].
            segments: The segment of each, a NumPy array of n integers in [0, count).
            count: How many segments.

        Returns:
            Floats of shape [count]; 0 for a segment without elements.
        """
        ...

    def quantile(self, window: Window, q: float, decay: float) -> Array:
        """What `clipping.window.quantile` computes, by that or in a faster way."""
        ...

    def min(self, x: Array) -> Array:
        """Of all elements, 0-d."""
        ...

    def any(self, x: Array) -> Array:
        """Of all elements, 0-d."""
        ...

    def norm(self, x: Array) -> Array:
        """L2 norm of all elements, 0-d."""
        ...

    def export(self, x: Array) -> Any:
        """Fit to be handed out: Python values on the host, else scalars on the device.

        A 0-d array gives one, a 1-d array a list.
        """
        ...

    def to_host(self, x: Array) -> Any:
        """As a NumPy array; waits for the device."""
        ...

    def later(self, x: Array) -> Later | None:
        """Send a value to the host without waiting for it; None where that is not possible."""
        ...

    def from_host(self, x: Any) -> Array:
        """From a NumPy array."""
        ...


class ParamLike(Protocol):
    """A parameter of a NumPy model: its array, and its gradient of the same shape or None."""

    data: Any
    grad: Any


class NumpyModel(Protocol):
    """A NumPy model: anything that lists its parameters."""

    def parameters(self) -> Iterable[ParamLike]:
        """All parameters, in the same order every time."""
        ...


class NumpyOptimizer(Protocol):
    """A NumPy optimizer: anything that can step."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Update the parameters from their gradients."""
        ...
