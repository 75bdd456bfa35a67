"""Which metrics are meant: by name, by prefix, by pattern, or the usual ones when none is named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from telemetry.viewer.frames.points import check_frame, metrics_of

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_PANELS: Final = 6
"""How many panels a first look has."""

NEAREST: Final = 3
SHOWN: Final = 8
"""How many names an error tells, where something is nearly called so and where nothing is."""

_LOSSES: Final = ("loss", "avg_loss")
_NORMS: Final = ("grad_norm", "threshold", "target")
_RATES: Final = ("lr", "learning_rate")
_SPLITS: Final = ("val", "valid", "validation", "eval", "test")
_COSTS: Final = re.compile(r"_(ns|us|ms|s|min|h)$|(^|_)(duration|time|bytes)(_|$)")
_DETAILS: Final = ("batch_size", "clipped_grad_norm", "count", "groups", "groups_clipped")
_UNITS: Final = {
    **dict.fromkeys(("clipped_grad_norm", "threshold", "target"), "grad_norm"),
    **dict.fromkeys(("avg_loss", "epoch_loss"), "loss"),
    "learning_rate": "lr",
}
"""Under which name a metric shares an axis with others of its unit."""
_ASIDE: Final = ("regularizer", "alert", "telemetry")
"""First parts of names of what is looked at when there is a reason to."""
_LAST: Final = 9
"""The rank of what nobody looks at first."""


def filter_metrics(data: DataFrame, metrics: str | Iterable[str]) -> DataFrame:
    """The records that have some metrics, with no others.

    Args:
        data: The frame that `read_jsonl` gives.
        metrics: Names such as ``"train.loss"``, prefixes such as ``"val."``, patterns with ``*``
            and ``?`` such as ``"*.loss"``. Slashes are dots, and ``train.`` is ``training.``.

    Returns:
        A frame with the other columns as they are, and the metrics in the order in which they
        were named.

    Raises:
        TypeError: The data is no frame, or a metric is no string.
        ValueError: No metric is named so; the nearest ones are offered.

    Example:
        >>> import pandas
        >>> frame = pandas.DataFrame({"step": [1, 2], "lr": [0.1, None], "val.loss": [None, 3]})
        >>> filter_metrics(frame, ["val."])
           step  val.loss
        1     2       3.0
    """
    frame = check_frame(data, "filter_metrics")
    metrics_there = metrics_of(frame)
    chosen = match_metrics(metrics, metrics_there)
    dropped = set(metrics_there)
    others = [name for name in frame.columns if name not in dropped and name not in chosen]
    filtered = frame.loc[frame[chosen].notna().any(axis=1), [*others, *chosen]]
    filtered.attrs["metrics"] = chosen
    return filtered


def match_metrics(wanted: str | Iterable[str], names: Iterable[str]) -> list[str]:
    """The names that are meant.

    Args:
        wanted: Names, prefixes and patterns.
        names: The metrics that there are.

    Returns:
        Each name once, in the order of what was wanted.

    Raises:
        TypeError: What is wanted is no string or a list of strings.
        ValueError: Nothing is named so; the nearest ones are offered. Or no name is given.

    Example:
        >>> match_metrics(["train/loss", "val."], ["training.loss", "val.loss", "val.accuracy"])
        ['training.loss', 'val.loss', 'val.accuracy']
    """
    listed = _listed(wanted)
    by_name: dict[str, str] = {}
    for name in names:
        by_name.setdefault(dotted(name), name)
    found = [(each, _matching(dotted(each), by_name)) for each in listed]
    unknown = [each for each, matching in found if not matching]
    if unknown:
        raise ValueError(_unknown(unknown, list(by_name)))
    return list(dict.fromkeys(by_name[name] for _, matching in found for name in matching))


def default_metrics(names: Iterable[str], *, panels: int = MOST_PANELS) -> list[str]:
    """What to look at first: losses, gradient norms, the learning rate, evaluations, then the rest.

    Metrics of single layers and durations are left out, unless there is nothing else.

    Args:
        names: The metrics that there are.
        panels: In how many panels they may be, as `panel_of` tells them apart.

    Example:
        >>> default_metrics(["training.lr", "training.duration_ms", "training.loss", "val.loss"])
        ['training.loss', 'val.loss', 'training.lr']
    """
    ranked = sorted(names, key=lambda name: _rank(dotted(name)))  # as they come, among equals
    useful = [name for name in ranked if _rank(dotted(name)) < _LAST] or ranked
    allowed = list(dict.fromkeys(map(panel_of, useful)))[:panels]
    return [name for name in useful if panel_of(name) in allowed]


def prefer_averages(names: Sequence[str], there: Iterable[str]) -> list[str]:
    """The names, with ``train.avg_loss`` in place of ``train.loss`` where there is such a metric.

    Example:
        >>> there = ["train.loss", "train.avg_loss", "val.loss"]
        >>> prefer_averages(["train.loss", "val.loss"], there)
        ['train.avg_loss', 'val.loss']
    """
    present = {dotted(name): name for name in there}
    averages = (present.get(_average_of(dotted(name)), name) for name in names)
    return list(dict.fromkeys(averages))


def panel_of(name: str) -> str:
    """What metrics have in common that share an axis: the last part of their name, or its unit.

    Example:
        >>> panel_of("val.loss"), panel_of("smartclip.threshold"), panel_of("smartclip.scale[a/0]")
        ('loss', 'grad_norm', 'scale')
    """
    last = _last(dotted(name))
    return _UNITS.get(last, last)


def dotted(name: str) -> str:
    """A name with dots for slashes, but in what tells a layer or another group.

    Example:
        >>> dotted("train/loss"), dotted("smartclip/scale[param/0]")
        ('train.loss', 'smartclip.scale[param/0]')
    """
    stem, bracket, key = name.partition("[")
    return stem.replace("/", ".") + bracket + key


def _listed(wanted: object) -> list[str]:
    single = isinstance(wanted, str) or not isinstance(wanted, Iterable)
    listed: list[Any] = [wanted] if single else list(wanted)  # type: ignore[call-overload] # checked above
    for each in listed:
        if not isinstance(each, str):
            raise TypeError(
                f"A metric is named by a string, got {each!r} ({type(each).__name__}). "
                "Write ['train.loss', 'val.']."
            )
    if "" in listed:
        raise ValueError("The name of a metric is empty. Write one such as 'train.loss'.")
    if not listed:
        raise ValueError("metrics=[] names no metric. Name some, or leave it out for all.")
    return listed


def _matching(wanted: str, names: Iterable[str]) -> list[str]:
    for spelling in _spellings(wanted):
        exact = [name for name in names if name == spelling]
        if exact:
            return exact
    patterns = [_pattern(spelling) for spelling in _spellings(wanted)]
    return [name for name in names if any(pattern.fullmatch(name) for pattern in patterns)]


def _spellings(wanted: str) -> tuple[str, ...]:
    first, dot, rest = wanted.partition(".")
    other = {"train": "training", "training": "train"}.get(first)
    return (wanted, other + dot + rest) if other and dot else (wanted,)


def _pattern(wanted: str) -> re.Pattern[str]:
    """A name stands for what is under it as well: ``val.``, ``val``, ``smartclip.scale``."""
    parts = {"*": ".*", "?": "."}
    pattern = "".join(parts.get(char) or re.escape(char) for char in wanted.removesuffix("."))
    under = r"[.].*" if wanted.endswith(".") else "" if {"*", "?"} & set(wanted) else r"[.\[].*"
    return re.compile(pattern + under, re.DOTALL)


def _unknown(wanted: Sequence[str], names: list[str]) -> str:
    """That nothing is called so, and what is: something near, else what one looks at first."""
    none = f"There is no metric {' or '.join(map(repr, wanted))}"
    if not names:
        return f"{none}: there are no metrics at all."
    near = list(dict.fromkeys(name for each in wanted for name in _near(dotted(each), names)))
    if near:
        return f"{none}. Nearest: {', '.join(near)}."
    shown = default_metrics(names, panels=SHOWN)[:SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"{none}. Metrics: {', '.join(shown)}{more}."


def _near(asked: str, names: list[str]) -> list[str]:
    like = [name for name in names if _last(name) == _last(asked)]
    close = difflib.get_close_matches(asked, names, n=NEAREST, cutoff=0.5)
    return list(dict.fromkeys([*close, *like]))[:NEAREST]


def _last(name: str) -> str:
    return name.partition("[")[0].rpartition(".")[2]


def _average_of(name: str) -> str:
    stem, dot, last = name.rpartition(".")
    return f"{stem}{dot}avg_{last}"


def _rank(name: str) -> int:
    """How early a metric is looked at: losses are 0."""
    first, last = name.partition(".")[0], _last(name)
    if "[" in name or last in _DETAILS or _COSTS.search(last) or first in _ASIDE:
        return _LAST
    if last in _LOSSES or last.endswith("_loss"):
        return 0
    if last in _NORMS:
        return 1
    if last in _RATES:
        return 2
    if first in _SPLITS:
        return 3
    return 4 if first in ("train", "training", "rl") else 5
