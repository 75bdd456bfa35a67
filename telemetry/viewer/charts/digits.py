"""Numbers as a person reads them."""

from __future__ import annotations

import math
from typing import Final

WHOLE: Final = 1e15
"""Below it whole numbers are written out."""


def number_text(value: float, digits: int = 6) -> str:
    """A whole number with all its digits, and any other with so many that count.

    Example:
        >>> number_text(1234567.0), number_text(0.12345678), number_text(1e300)
        ('1,234,567', '0.123457', '1e+300')
    """
    if math.isfinite(value) and abs(value) < WHOLE and value == math.floor(value):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
