"""``telemetry view``: a live page of runs in the browser."""

from __future__ import annotations

import os
import secrets
import sys
import warnings
import webbrowser
from collections.abc import Iterator
from contextlib import closing, contextmanager
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from telemetry.cli.options.named_path import NamedPath
from telemetry.cli.output.printable import printable
from telemetry.errors import MissingExtraError
from telemetry.viewer.logs.sources import at_home, find_logs

if TYPE_CHECKING:
    from telemetry.viewer.page.live import Live

HOME: Final = Path("runs")
MODES: Final = ("mean", "centered", "ema", "median")
AXES: Final = ("step", "time", "epoch")


@click.command()
@click.argument("paths", nargs=-1, metavar="[RUN]...", type=NamedPath())
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to serve on. At one that others can reach, the page needs a token, which is "
    "in the address that is printed.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="0 takes any that is free.  [default: 7007, or the first free one behind it]",
)
@click.option("--token", "with_token", is_flag=True, help="Need a token on this machine as well.")
@click.option(
    "--browser/--no-browser",
    "open_browser",
    default=None,
    help="Open the page.  [default: where there is a screen, and no token]",
)
@click.option(
    "--smooth",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Over how many points the page smooths at first.",
)
@click.option(
    "--smooth-mode", type=click.Choice(MODES), default="mean", show_default=True, help="And how."
)
@click.option(
    "--x-key",
    type=click.Choice(AXES),
    default="step",
    show_default=True,
    help="The horizontal axis at first.",
)
def view(
    paths: tuple[Path, ...],
    host: str,
    port: int | None,
    with_token: bool,
    open_browser: bool | None,
    smooth: int,
    smooth_mode: str,
    x_key: str,
) -> None:
    """Show runs on a page in the browser, which goes on with what they write.

    RUN is a log, plain or gzipped, a pattern, or a directory, of which all logs are meant; one
    that has none yet is waited for. By default it is the directory runs, or this one where there is
    none. The page is served on this machine until Ctrl-C, and takes nothing from the internet.

    \b
    telemetry view                                 all runs below runs/
    telemetry view runs/a/metrics.jsonl runs/b/metrics.jsonl --smooth 20
    telemetry view runs --host 0.0.0.0             for others too, with a token
    """  # noqa: D301 -- click looks for the character itself
    given = tuple(map(at_home, paths)) or (HOME if HOME.is_dir() else Path(),)
    _check(given)
    with _listen(host, port) as listening, _warned(), closing(_looking(given)) as live:
        from telemetry.viewer.page.addresses import address_of, is_loopback  # noqa: PLC0415 -- on first use
        from telemetry.viewer.page.server import PageServer  # noqa: PLC0415 -- while logs are read

        token = secrets.token_urlsafe(24) if with_token or not is_loopback(host) else None
        url = address_of(listening, host, token)
        wanted = _has_screen() and token is None if open_browser is None else open_browser

        def started() -> None:
            _say(given, url)
            if wanted and not webbrowser.open(url):
                click.echo("No browser could be started: open the address yourself.", err=True)

        settings: dict[str, Any] = {"smooth": smooth, "mode": smooth_mode, "axis": x_key}
        page = PageServer(live, host=host, token=token, settings=settings, started=started)
        page.run(sockets=[listening])


@contextmanager
def _warned() -> Iterator[None]:
    """Say warnings as sentences; logs are read, and bad lines in them found, in a thread."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: click.echo(
            f"Warning: {printable(str(message))}", err=True
        )
        yield


def _looking(paths: tuple[Path, ...]) -> Live:
    """Begin to read, which takes longer than all else; so that nothing is imported before it."""
    try:
        from telemetry.viewer.page.needs import check_installed  # noqa: PLC0415 -- on first use

        check_installed()
    except MissingExtraError as error:
        raise click.ClickException(str(error)) from error
    from telemetry.viewer.page.live import Live  # noqa: PLC0415 -- after the check
    from telemetry.viewer.page.watched import Watched  # noqa: PLC0415 -- as above

    live = Live(Watched(paths))
    live.start()
    return live


def _check(paths: tuple[Path, ...]) -> None:
    """Find out before the page opens that a log is missing, or cannot be read."""
    for path in paths:
        if path.is_dir():
            if not os.access(path, os.R_OK | os.X_OK):
                raise click.ClickException(f"The directory '{path}' cannot be read.")
            continue
        if has_magic(str(path)) and not path.exists():
            continue  # waited for, as an empty directory is
        if not path.exists():
            raise click.ClickException(f"There is no file or directory '{path}'.")
        if not os.access(path, os.R_OK):
            raise click.ClickException(f"The file '{path}' cannot be read.")


def _listen(host: str, port: int | None) -> Any:
    from telemetry.viewer.page.addresses import PortTakenError, listen  # noqa: PLC0415 -- on first use

    try:
        return listen(host, port)
    except PortTakenError as error:
        raise click.ClickException(str(error.strerror)) from error
    except (OSError, UnicodeError) as error:  # the latter of a name that none can have
        at = f"{host!r}" if port is None else f"{host!r}, port {port}"
        reason = getattr(error, "strerror", None) or error
        raise click.ClickException(
            f"The page cannot be served at {at}: {reason}. --host takes an address of this "
            "machine, and --port 0 any port that is free."
        ) from error


def _say(paths: tuple[Path, ...], url: str) -> None:
    for path in paths:
        try:
            find_logs(path)
        except FileNotFoundError as error:
            click.echo(f"{error} Waiting for it.", err=True)
    click.echo(f"Showing {', '.join(map(str, paths))} at")
    click.echo(f"  {click.style(url, bold=True)}")
    click.echo("Ctrl-C ends it.", err=True)
    sys.stdout.flush()


def _has_screen() -> bool:
    """Whether a browser would have a window, and not take the terminal."""
    if sys.platform in ("darwin", "win32"):
        return not os.environ.get("SSH_CONNECTION")
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
