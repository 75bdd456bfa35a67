"""How commands end: quietly at a closed pipe and at Ctrl-C, with a word when a disk is full."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

import click

from telemetry.cli.output.printable import printable_lines

INTERRUPTED: Final = 130
"""The exit status of Ctrl-C: 128 and the number of ``SIGINT``, as shells have it."""
QUERY_INTERRUPTED: Final = "Query interrupted"
"""What DuckDB raises at Ctrl-C, in place of a KeyboardInterrupt."""
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What writing to a file, or to an output that is one, can end with."""


class Commands(click.Group):
    """A group of commands whose ends are those of `ending`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; see `click.Command.main`."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        _open_closed()
        with ending():
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
            sys.exit(status if isinstance(status, int) else 0)  # else what the command returned

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the command line."""
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            extra.setdefault("color", False)
        with _closed_pipes():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        with _closed_pipes():
            return super().invoke(ctx)


@contextmanager
def ending() -> Iterator[None]:
    """End the program as its user expects, without a traceback.

    - Who reads the output has enough of it: status 0.
    - Ctrl-C: status 130.
    - The output cannot be written: status 1 and why, on standard error.
    - An error of click's: its message and its status.
    """
    try:
        yield
    except click.ClickException as error:
        _show(error)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except RuntimeError as error:
        if str(error) != QUERY_INTERRUPTED:
            raise
        sys.exit(INTERRUPTED)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _silence(sys.stdout)
        _show(click.ClickException(f"The output cannot be written: {error.strerror}."))


def reader_is_gone() -> bool:
    """Whether nobody reads standard output any more; who waits for something has to ask."""
    return _is_closed_pipe(sys.stdout)


@contextmanager
def _closed_pipes() -> Iterator[None]:
    """Deal with closed pipes before click does, which makes a failure of them."""
    try:
        yield
    except BrokenPipeError as error:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _is_closed_pipe(stream)]
        if not gone:
            raise click.ClickException("A connection was closed by its other end.") from error
        for stream in gone:
            _silence(stream)
        sys.exit(0)


def _open_closed() -> None:
    """Let what is written to an output that was closed at the start (``>&-``) go nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 -- a device, to the end


def _show(error: click.ClickException) -> None:
    # Names of files may hold anything. Before it is shown: click takes out what could be a colour.
    error.message = printable_lines(error.message)  # type: ignore[misc] # final to who subclasses
    try:
        error.show()
    except BrokenPipeError:
        _silence(sys.stderr)
    sys.exit(error.exit_code)


def _is_closed_pipe(stream: TextIO) -> bool:
    number = _number_of(stream)
    if number is None:
        return False
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))


def _silence(stream: TextIO) -> None:
    """Let what is still to be written go nowhere, or the interpreter's end would complain."""
    number = _number_of(stream)
    if number is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def _number_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (io.UnsupportedOperation, ValueError):
        return None  # a stream of a test, or one that is closed
