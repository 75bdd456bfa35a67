"""Units of measurements, and the factor from one to another."""

from __future__ import annotations

from typing import Final

# In whole numbers of the smallest, so that a factor is the nearest float there is.
_SCALES: Final[dict[str, dict[str, int]]] = {
    "time": {
        "ns": 1,
        "us": 10**3,
        "ms": 10**6,
        "s": 10**9,
        "min": 60 * 10**9,
        "h": 3600 * 10**9,
    },
    "size": {
        "bytes": 1,
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
    },
    "share": {"percent": 1, "ratio": 100},
}


def convert(value: float, by: float) -> float:
    """A number times a factor, as exact as can be: 5000 ns are 0.005 ms, and nothing beside it.

    Example:
        >>> convert(5000.0, factor("ns", "ms")), 5 * factor("us", "s")
        (0.005, 4.9999999999999996e-06)
    """
    inverse = divisor(by)
    return value / inverse if inverse else value * by


def divisor(factor: float) -> float:
    """What to divide by in place of multiplying, where that is more exact; else 0.

    Example:
        >>> divisor(1e-06), divisor(1000.0)
        (1000000, 0)
    """
    inverse = round(1 / factor)
    return inverse if inverse and 1 / inverse == factor else 0


def factor(given: str, wanted: str) -> float:
    """What a number in one unit is multiplied by to be in another.

    Raises:
        ValueError: One cannot be converted to the other.

    Example:
        >>> factor("ns", "ms"), factor("GB", "MB")
        (1e-06, 1000.0)
    """
    if given == wanted:
        return 1.0
    for scale in _SCALES.values():
        if given in scale and wanted in scale:
            return scale[given] / scale[wanted]
    kinds = "; ".join(", ".join(scale) for scale in _SCALES.values())
    raise ValueError(
        f"Cannot convert {given!r} to {wanted!r}. Within each of these, any can be converted to "
        f"any other: {kinds}."
    )
