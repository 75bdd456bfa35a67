"""Names of curves as MLflow takes them."""

from __future__ import annotations

import hashlib
import re
from typing import Final

LONGEST: Final = 250
MOST: Final = 10_000
"""Names that are remembered."""
_REFUSED: Final = re.compile(r"[^/\w.\- ]")


class Names:
    """Keeps curves of different names apart where MLflow has one name for them.

    The first one gets it; another one ends in a short hash of itself. That holds for the first
    10,000 names, and within one process.

    Example:
        >>> names = Names()
        >>> names("eval.f1@5"), names("eval.f1_5"), names("eval.f1@5")
        ('eval.f1_5', 'eval.f1_5-4c1c00ac', 'eval.f1_5')
    """

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """The name that MLflow takes."""
        plain = metric_name(name)
        first = self._first.get(plain)
        if first is None and len(self._first) < MOST:
            self._first[plain] = first = name
        return plain if first in (None, name) else _marked(plain, name)


def metric_name(name: str) -> str:
    """A reported name with what MLflow allows: letters, digits, ``_-./`` and spaces.

    What stands in brackets becomes the next part of a path; any other character, the colon too
    because a server on Windows refuses it, becomes ``_``. MLflow also refuses paths that mean
    another one, such as ``a//b`` and ``a/../b``. What is too long ends in a short hash of itself.

    Example:
        >>> metric_name("smartclip.grad_norm[layer/conv1]"), metric_name("eval.f1@5")
        ('smartclip.grad_norm/layer/conv1', 'eval.f1_5')

    References:
        https://mlflow.org/docs/latest/api_reference/rest-api.html#log-metric
    """
    plain = _REFUSED.sub("_", name.replace("[", "/").replace("]", ""))
    parts = [_part(part) for part in plain.split("/") if part]
    whole = "/".join(parts) or "_"
    return whole if len(whole) <= LONGEST else _marked(whole, name)


def _marked(whole: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{whole[: LONGEST - 9].rstrip('/')}-{digest}"


def _part(part: str) -> str:
    return part.replace(".", "_") if part in (".", "..") else part
