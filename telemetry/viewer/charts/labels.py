"""What the lines of a chart are called."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len, set_cell_size

from telemetry.viewer.frames.points import runs_of
from telemetry.viewer.logs.sources import labels_of

if TYPE_CHECKING:
    from pandas import DataFrame

LONGEST: Final = 40
"""Columns of a name in a legend."""
MOST_NAMED: Final = 8
"""Runs that an error names."""

_SEED: Final = re.compile(r"(?<=seed)([-_=]?)\d+", re.IGNORECASE)
_LAST_NUMBER: Final = re.compile(r"(?<!\d)(?<!\d\.)(?<!\de)(?<!\de-)\d+(?!.*\d)", re.DOTALL)
"""Of a name; the end of 0.1 and of 1e-4 is not a number of its own."""


def label_runs(
    frames: Sequence[DataFrame], labels: Sequence[str] | None = None, *, shared: bool = False
) -> list[list[str]]:
    """What each run of each frame is called.

    Args:
        frames: What `read_jsonl` gave.
        labels: One for each frame, or one for each run of all frames. By default a run has its own
            name, with folders before it where files of several frames have the same one.
        shared: Whether several runs can have the same of these labels; otherwise they are numbered.

    Returns:
        A list for each frame.

    Raises:
        TypeError: Labels are no list of strings.
        ValueError: They are neither as many as there are frames nor as there are runs.

    Example:
        >>> import pandas
        >>> frames = [pandas.DataFrame({"run": ["metrics"]}) for _ in range(2)]
        >>> label_runs(frames), label_runs(frames, ["old", "new"])
        ([['metrics (1)'], ['metrics (2)']], [['old'], ['new']])
    """
    runs = [[run for run, _ in runs_of(frame)] for frame in frames]
    if labels is None:
        return _split(_numbered(_by_file(frames, runs)), runs)
    given = _check_labels(labels, len(frames), sum(map(len, runs)))
    if len(given) == len(frames):
        given = [
            label if len(names) == 1 else f"{label} {name}"
            for label, names in zip(given, runs, strict=True)
            for name in names
        ]
    return _split(given if shared else _numbered(given), runs)


def shorten_labels(labels: Sequence[str], longest: int = LONGEST) -> list[str]:
    """The labels in one printable line each, with ``…`` in the middle of long ones.

    Labels that differ still do: as much is left as that takes. A wide character, such as a Chinese
    one, counts as two.

    Example:
        >>> shorten_labels(["a-very-long-name-with-lr-0.1", "short"], longest=15)
        ['a-very-…-lr-0.1', 'short']
    """
    shown = ["".join(map(_printable, label)) for label in labels]
    different = len(set(shown))
    while True:
        short = [_cut(label, longest) for label in shown]
        if len(set(short)) == different:
            return short
        longest *= 2


def family_of(label: str) -> str:
    """What the seeds of one run have in common: their label without its seed, or its last number.

    Example:
        >>> family_of("lr0.1-seed3/metrics"), family_of("digits-12")
        ('lr0.1-seed*/metrics', 'digits-*')
    """
    family, seeds = _SEED.subn(r"\1*", label)
    return family if seeds else _LAST_NUMBER.sub("*", label)


def check_labels(labels: object, runs: Sequence[str]) -> list[str]:
    """Labels of all runs, one for each.

    Raises:
        TypeError: They are no list of strings.
        ValueError: They are fewer or more than there are runs.
    """
    listed = _strings(labels)
    if len(listed) != len(runs):
        raise ValueError(
            f"labels must be as many as there are runs, got {len(listed)} for "
            f"{_runs(len(runs))} ({', '.join(runs[:MOST_NAMED])}"
            f"{', ...' if len(runs) > MOST_NAMED else ''}): {listed!r}."
        )
    return listed


def _check_labels(labels: object, frames: int, runs: int) -> list[str]:
    listed = _strings(labels)
    if len(listed) not in (frames, runs):
        counts = _runs(runs) if frames in (1, runs) else f"{frames} frames with {_runs(runs)}"
        raise ValueError(
            f"labels must be as many as there are runs, got {len(listed)} for {counts}: {listed!r}."
        )
    return listed


def _strings(labels: object) -> list[str]:
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise TypeError(f"labels must be a list of strings, got {labels!r}.")
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"A label must be a string, got {label!r} ({type(label).__name__}).")
    return list(labels)


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


def _by_file(frames: Sequence[DataFrame], runs: list[list[str]]) -> list[str]:
    """The names of the runs; where frames of one run each share them, those of their files."""
    names = [name for each in runs for name in each]
    sources = [frame.attrs.get("sources", ()) for frame in frames]
    alone = all(len(each) == 1 for each in runs) and all(len(each) == 1 for each in sources)
    if len(set(names)) == len(names) or not alone:
        return names
    return labels_of(tuple(Path(each[0]) for each in sources))


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, with numbers behind those that come more than once."""
    counts = Counter(names)
    taken = {name for name in names if counts[name] == 1}
    numbered = []
    for name in names:
        own = name
        if counts[name] > 1:
            own = next(n for i in itertools.count(1) if (n := f"{name} ({i})") not in taken)
            taken.add(own)
        numbered.append(own)
    return numbered


def _split(labels: list[str], runs: list[list[str]]) -> list[list[str]]:
    left = iter(labels)
    return [[next(left) for _ in names] for names in runs]


def _printable(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def _cut(label: str, longest: int) -> str:
    if cell_len(label) <= longest:
        return label
    head = longest // 2
    tail = set_cell_size(label[::-1], longest - head - 1)[::-1]
    return f"{set_cell_size(label, head)}…{tail}"
