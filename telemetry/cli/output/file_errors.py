"""Files that cannot be read, in words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from telemetry.cli.output.printable import printable


@contextmanager
def file_errors() -> Iterator[None]:
    """Say which file cannot be read and why, where there would be a traceback.

    Raises:
        click.ClickException: A file cannot be read, or there is none.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            name = printable(str(os.fsdecode(error.filename)))
            raise click.ClickException(f"{name} cannot be read: {error.strerror}.") from error
        if not isinstance(error, FileNotFoundError):
            raise  # of the output
        raise click.ClickException(printable(str(error))) from error
