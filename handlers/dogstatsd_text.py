"""Names, tags, numbers and texts as Datadog takes them, whatever they were."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

LONGEST_NAME: Final = 200
"""Characters of a metric's name, and of a tag."""
UNNAMED: Final = "unnamed"
LONGEST_TITLE: Final = 100
LONGEST_TEXT: Final = 4000
"""Characters of an event's title and text."""

_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9_.]+")
_DOTS: Final = re.compile(r"[._]*\.[._]*")
_BEFORE_NAME: Final = re.compile(r"^[^A-Za-z]+")
_NOT_IN_TAG: Final = re.compile(r"[^\w\-:./]")
_NOT_IN_MEMBER: Final = re.compile(r"[^\w\-./]")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_EXACT: Final = 2**53
"""Beyond it a float does not tell which integer was meant."""


def metric_name(name: str, namespace: str = "") -> str:
    """A name of letters, digits, underscores and periods, which begins with a letter.

    Args:
        name: Any text. ``/`` becomes a period, anything else that is not allowed an underscore.
        namespace: What it is to begin with, unless it does so already.

    References:
        https://docs.datadoghq.com/metrics/custom_metrics/#naming-custom-metrics

    Example:
        >>> metric_name("smartclip.grad_norm[layer/conv1]", "signal")
        'signal.smartclip.grad_norm_layer.conv1'
        >>> metric_name("signal.training.loss", "signal"), metric_name("7 %")
        ('signal.training.loss', 'unnamed')
    """
    text = _NOT_IN_NAME.sub("_", name.replace("/", "."))
    text = _DOTS.sub(".", text).strip("._")
    if namespace and not text.startswith(f"{namespace}."):
        text = f"{namespace}.{text or UNNAMED}"
    return _BEFORE_NAME.sub("", text)[:LONGEST_NAME].rstrip("._") or UNNAMED


def tag(text: str) -> str:
    """A tag in lower case, which begins with a letter; "" if nothing is left of it.

    References:
        https://docs.datadoghq.com/getting_started/tagging/#define-tags

    Example:
        >>> tag("Team:ML|Research,#1"), tag("run_id:Ä/7"), tag("42")
        ('team:ml_research__1', 'run_id:ä/7', '')
    """
    text = _NOT_IN_TAG.sub("_", text.lower())
    letter = next((at for at, char in enumerate(text) if char.isalpha()), len(text))
    return text[letter : letter + LONGEST_NAME].rstrip(":_")


def member(value: object) -> str:
    """What is counted in a set, which can be any word.

    Example:
        >>> member(7), member("user:7|x")
        ('7', 'user_7_x')
    """
    return _NOT_IN_MEMBER.sub("_", str(value))[:LONGEST_NAME] or "_"


def number(value: float) -> int | float:
    """A finite number, without a point where it needs none, and with no negative zero.

    Example:
        >>> number(3.0), number(-0.0), number(2.5e-05)
        (3, 0, 2.5e-05)
    """
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def plain_decimal(value: float) -> str:
    """A finite number without an exponent, which not every StatsD server reads.

    Example:
        >>> plain_decimal(2.5e-05), plain_decimal(3.0), plain_decimal(1e20)
        ('0.000025', '3', '100000000000000000000')
    """
    return f"{Decimal(repr(number(value))):f}".removesuffix(".0")


def title(text: str) -> str:
    r"""One line of at most 100 characters.

    Example:
        >>> title("Run\nfailed"), title("")
        ('Run failed', 'untitled')
    """
    return paragraph(text).replace("\n", " ").strip()[:LONGEST_TITLE] or "untitled"


def paragraph(text: str) -> str:
    r"""Lines of at most 4,000 characters together, without any other control character.

    Example:
        >>> paragraph("a\r\nb\x1b[31m\ud800")
        'a\nb [31m?'
    """
    lines = _CONTROL.sub(" ", text.replace("\r\n", "\n"))
    return lines.encode("utf-8", "replace").decode("utf-8").strip()[:LONGEST_TEXT]
