"""Units of measurements, and the factor from one to another."""

from __future__ import annotations

from typing import Final

_SCALES: Final[dict[str, dict[str, float]]] = {
    "time": {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    "size": {
        "bytes": 1.0,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "KiB": 2.0**10,
        "MiB": 2.0**20,
        "GiB": 2.0**30,
    },
    "share": {"ratio": 1.0, "percent": 1e-2},
}


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
