"""Types that every part of the package shares: a leaf module without imports of its own package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypedDict

Array: TypeAlias = Any
"""An array of whatever library the `Ops` at hand are written in."""

Key: TypeAlias = tuple[str, ...]
"""The name of a group of gradients, such as ``("global",)``."""

Mode: TypeAlias = Literal["auto", "percentile"]
Weighting: TypeAlias = Literal["ema", "window"]
Scope: TypeAlias = Literal["global"]
Policy: TypeAlias = Literal["skip", "zero", "propagate", "raise"]
"""What is done about gradients that are not finite."""

GLOBAL: tuple[Key, ...] = (("global",),)
"""The groups of scope ``"global"``: one, of everything."""


class MetricsRecord(TypedDict):
    """What ``on_metrics`` is called with, once per group and step; all numbers are Python's."""

    algo: str
    key: Key
    scope: str
    grad_norm: float
    threshold: float
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


class State(NamedTuple):
    """All that a clipper remembers between steps.

    Attributes:
        steps: How many optimizer steps it has seen, a 0-d integer.
        threshold: The threshold of the last step, of shape [groups]; infinity if there is none.
        window: The history.
    """

    steps: Array
    threshold: Array
    window: Window


class Decision(NamedTuple):
    """What is to be done with the gradients of one step; every array is of shape [groups].

    Attributes:
        norms: L2 norms before clipping.
        limits: What the norms were held against, by the name under which it is reported.
        scale: Factors in [0, 1]; 0 for what is zeroed.
        nonfinite: Which norms are NaN or infinite.
        zeroed: Which groups are to be zeros (a factor would leave NaN what it is).
    """

    norms: Array
    limits: Mapping[str, Array]
    scale: Array
    nonfinite: Array
    zeroed: Array


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
        """Along the last axis, ascending."""
        ...

    def take(self, x: Array, index: Array) -> Array:
        """Elements along the last axis, by an index of the same number of axes."""
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

    def from_host(self, x: Any) -> Array:
        """From a NumPy array."""
        ...


class Gradients(Protocol):
    """The gradients of one step."""

    @property
    def backend(self) -> str:
        """The name of the framework."""
        ...

    @property
    def ops(self) -> Ops:
        """Operations where the norms are."""
        ...

    @property
    def keys(self) -> Sequence[Key]:
        """The names of the groups."""
        ...

    def norms(self) -> Array:
        """The L2 norm of each group, of shape [groups]."""
        ...

    def rescale(self, decision: Decision) -> None:
        """Scale or zero the gradients as it was decided."""
        ...


class Backend(Protocol):
    """What a module of ``clipping.backends`` provides."""

    def recognises(self, parameter: object) -> bool:
        """Whether a model with such a parameter is this framework's."""
        ...

    def gradients_of(self, model: Any) -> Gradients:
        """The gradients that a model holds.

        Raises:
            TypeError: A gradient or parameter is of a kind that cannot be clipped.
            ValueError: There is no gradient, or they are on several devices.
        """
        ...

    def check_optimizer(self, optimizer: object) -> None:
        """Raise TypeError for what is no optimizer of this framework."""
        ...

    def before_step(self, optimizer: Any, act: Callable[[], None]) -> Callable[[], None]:
        """Have ``act`` called before every step of an optimizer; returns what undoes that.

        Raises:
            TypeError: The optimizer cannot be hooked.
        """
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
