"""``save_plot``: a figure as a file."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from telemetry.viewer.logs.sources import at_home

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS: Final = (".png", ".svg", ".pdf")
DPI: Final = 120
MOST_PIXELS: Final = 100e6
SHOWN: Final = 40
"""Characters of a picture's name in that of the file that becomes it; names end at 255 bytes."""


def save_plot(fig: Figure, path: str | os.PathLike[str], *, dpi: float = DPI) -> Path:
    """Write a figure into a file, whole or not at all.

    Who reads the file meanwhile sees the picture that was there before. A link stays one: what it
    leads to is written. The figure stays open.

    Args:
        fig: What `plot_metrics` gives, or any figure of matplotlib.
        path: A ``.png``, ``.svg`` or ``.pdf`` file. Its folders are made.
        dpi: Dots per inch of a PNG.

    Returns:
        The path.

    Raises:
        TypeError: The path is none.
        ValueError: Its suffix is none of these, or a PNG would have over 100 million pixels.
        OSError: It cannot be written.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_plot(Figure(), f"{folder}/outputs/empty.svg").name
        'empty.svg'
    """
    file = check_picture(path)
    check_pixels(file, fig.get_figwidth(), fig.get_figheight(), dpi)
    target = _target_of(file)
    beside = target.with_name(f".{target.name[:SHOWN]}.{uuid4().hex}")
    try:
        with beside.open("wb") as opened:
            fig.savefig(opened, format=file.suffix.lower()[1:], dpi=dpi)
        beside.replace(target)
    except OSError as error:
        raise _refusal(error, file) from error
    finally:
        beside.unlink(missing_ok=True)
    return file


def check_picture(path: object) -> Path:
    """The path of a picture that can be written there: better known before the work than after.

    Its folders are made.

    Raises:
        TypeError: The path is none.
        ValueError: Its suffix is none of these.
        OSError: It cannot be written.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"A picture is written to a path, got {path!r} ({type(path).__name__}). "
            "Write save_plot(fig, 'outputs/metrics.png')."
        )
    file = at_home(path)
    if file.suffix.lower() not in FORMATS:
        raise ValueError(
            f"A picture must be a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file, got '{file}'."
        )
    folder = _target_of(file).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refusal(error, file) from error
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"Cannot write the picture '{file}': it is a folder.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(
            errno.EACCES, f"Cannot write the picture '{file}': its folder is not writable."
        )
    return file


def check_pixels(file: Path, width: float, height: float, dpi: float) -> None:
    """Raise ValueError for a PNG that is larger than memory may be.

    Args:
        file: Where it is written; other formats have no pixels.
        width: In inches.
        height: Likewise.
        dpi: Dots per inch.
    """
    pixels = width * height * dpi * dpi
    if file.suffix.lower() == ".png" and pixels > MOST_PIXELS:
        raise ValueError(
            f"A PNG of {width:g} x {height:g} inches at {dpi:g} dots per inch would have "
            f"{pixels / 1e6:,.0f} million pixels, and may have {MOST_PIXELS / 1e6:.0f} million. "
            "Make it smaller, or write an .svg or .pdf."
        )


def _target_of(file: Path) -> Path:
    """The file, or what it leads to if it is a link."""
    return Path(os.path.realpath(file))


def _refusal(error: OSError, file: Path) -> OSError:
    """The same error, in words."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        reason = "a folder of its path is a file"
        return NotADirectoryError(error.errno, f"Cannot write the picture '{file}': {reason}.")
    return type(error)(error.errno, f"Cannot write the picture '{file}': {error.strerror}.")
