"""Which files are meant, and what each is called."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

SUFFIXES: Final = (".jsonl", ".jsonl.gz")
PathLike: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = PathLike | Iterable[PathLike]


class Source(NamedTuple):
    """One log file.

    Attributes:
        path: Where it is.
        label: What tells it from the others, for a legend.
    """

    path: Path
    label: str


def find_logs(paths: Paths) -> tuple[Source, ...]:
    """The log files that are meant.

    Args:
        paths: One or several: a file, plain or gzipped; a pattern with ``*``, ``?`` or ``[...]``;
            or a directory, all of whose ``.jsonl`` and ``.jsonl.gz`` files are meant.

    Returns:
        Each file once, in the order given, those of a pattern or directory by name.

    Raises:
        TypeError: A path is none.
        FileNotFoundError: A file is missing, or a pattern or directory has no log.
        ValueError: No path was given.
    """
    found = find_files(paths)
    return tuple(map(Source, found, labels_of(found)))


def find_files(paths: Paths) -> tuple[Path, ...]:
    """The same without their labels, for who asks often."""
    given = _listed(paths)
    if not given:
        raise ValueError("No log file was given. Name a .jsonl file, or the directory of a run.")
    return each_once(path for name in given for path in _files_of(name))


def each_once(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Files by the first of their names: links may give one several."""
    found: dict[object, Path] = {}
    for path in paths:
        found.setdefault(identity_of(path), path)
    return tuple(found.values())


def identity_of(path: Path) -> object:
    """By what a file is known under any of its names."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return path.absolute()  # it is waited for
    return status.st_dev, status.st_ino


def at_home(path: PathLike) -> Path:
    """A path whose ``~`` no shell has replaced; as it is where nobody is called so."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 -- Path's raises for a "~name" without a home


def newest_log(directory: Path) -> Path:
    """The log in a directory that was written last.

    Raises:
        FileNotFoundError: There is none.
    """
    return max(_logs_in(directory), key=lambda path: (path.stat().st_mtime_ns, str(path)))


def _listed(paths: object) -> list[str]:
    single = isinstance(paths, str | os.PathLike)
    if not single and not isinstance(paths, Iterable):
        raise TypeError(
            f"A log is named by a path or a list of paths, got {paths!r} ({type(paths).__name__})."
        )
    listed: list[Any] = [paths] if single else list(paths)  # type: ignore[call-overload] # checked above
    for path in listed:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"A path must be a string or a Path, got {path!r}.")
    return [str(os.fspath(path)) for path in listed]


def _files_of(name: str) -> list[Path]:
    if not name:
        raise FileNotFoundError(
            "The path of a log is empty. Name a .jsonl file, or the directory of a run."
        )
    path = at_home(name)
    if path.is_dir():
        return _logs_in(path)
    if path.exists():
        return [path]
    if glob.has_magic(name):
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 -- Path's needs a folder to begin in
        logs = [log for each in found for log in _logs_at(each)]
        if logs:
            return logs
        raise FileNotFoundError(f"No file matches {name!r}.")
    raise FileNotFoundError(f"There is no file {name!r}.")


def _logs_in(directory: Path) -> list[Path]:
    found = _logs_at(directory)
    if not found:
        next(directory.iterdir(), None)  # where it cannot be read, this says so
        raise FileNotFoundError(
            f"The directory '{directory}' has no log: no file ends in {' or '.join(SUFFIXES)}."
        )
    return found


def _logs_at(path: Path) -> list[Path]:
    """What a name that matches a pattern means: it may be a folder, with logs or without."""
    if path.is_dir():
        return [log for log in sorted(path.rglob("*")) if _is_log(log)]
    return [path] if path.is_file() else []


def _is_log(path: Path) -> bool:
    return path.name.endswith(SUFFIXES) and path.is_file()


def labels_of(paths: tuple[Path, ...]) -> list[str]:
    """File names without suffixes, with as many folders before them as it takes to differ.

    Files that only their suffix tells apart keep it. What is no UTF-8 becomes a question mark.
    """
    stems = [path.absolute().with_name(_stem(path)) for path in paths]
    known = Counter(stems)
    names = [
        (stem if known[stem] == 1 else path.absolute()).parts
        for stem, path in zip(stems, paths, strict=True)
    ]
    labels = [""] * len(names)
    left = dict(enumerate(names))
    depth = 0
    while left:
        depth += 1
        ends = Counter(name[-depth:] for name in names)
        for place, name in list(left.items()):
            if ends[name[-depth:]] == 1 or depth >= len(name):
                labels[place] = str(Path(*name[-depth:])).encode("utf-8", "replace").decode()
                del left[place]
    return labels


def _stem(path: Path) -> str:
    suffix = next((suffix for suffix in SUFFIXES[::-1] if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix) if suffix else path.stem
