"""Handlers that a command attaches: ``--to NAME --option KEY=VALUE ...``, or a file of them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import click

from telemetry.cli.options.handler_options import (
    ABOUT,
    complete_handler,
    complete_option,
    read_options,
)
from telemetry.errors import ShadowedPackageError
from telemetry.names import check_pattern
from telemetry.packages import check_package
from telemetry.ranks import rank, rank_variable
from telemetry.registry import Registry

if TYPE_CHECKING:
    from handlers import SinkAttachment

COMMON: Final[Mapping[str, Any]] = {
    "id": str,
    "events": list[str],
    "every": int,
    "sample": float,
    "flush_timeout": float,
}
"""Options of all handlers that are useful to a command."""

MARK: Final = "\0"

Command: TypeAlias = Callable[..., None]


class Target(NamedTuple):
    """A handler to attach.

    Attributes:
        handler: Its name.
        given: Its options, each as ``KEY=VALUE`` or as a key and a value.
    """

    handler: str
    given: tuple[str | tuple[str, Any], ...]


class TargetsCommand(click.Command):
    """A command in which each ``--option`` belongs to the ``--to`` before it.

    click keeps the values of an option together and forgets what stood between them. So each
    ``--option`` is marked with the number of its ``--to`` before click reads the line.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Mark the options, and let click do the rest."""
        marked: list[str] = []
        number = 0
        for argument in args:
            flag, equals, value = argument.partition("=")
            if marked[-1:] == ["--option"]:
                marked.append(f"{number}{MARK}{argument}")
            elif flag == "--option" and equals:
                marked += ["--option", f"{number}{MARK}{value}"]
            else:
                number += flag == "--to"
                marked.append(argument)
        return super().parse_args(ctx, marked)


def target_options(about: str) -> Callable[[Command], Command]:
    """The options ``--to``, ``--option`` and ``--config`` of a `TargetsCommand`.

    Args:
        about: What the handlers are for, as the help says it.
    """
    options = (
        click.option(
            "--to",
            "names",
            multiple=True,
            metavar="NAME",
            shell_complete=complete_handler,
            help=f"{about}; several times for several.",
        ),
        click.option(
            "--option",
            "options",
            multiple=True,
            metavar="KEY=VALUE",
            shell_complete=complete_option,
            help=f"{ABOUT} It belongs to the --to before it.",
        ),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A TOML file with a table [[to]] for each handler.",
        ),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def check_process() -> None:
    """Make sure that handlers can be found, and that they do something in this process.

    Raises:
        click.ClickException: Another file hides the package, or this is another rank than 0, on
            which handlers are not built.
    """
    try:
        check_package("handlers")
    except ShadowedPackageError as error:
        raise click.ClickException(str(error)) from error
    variable = rank_variable()
    if variable is not None and rank():
        raise click.ClickException(
            f"{variable}={os.environ[variable]} says that this is a process of a distributed run, "
            f"and not its first, so handlers are not built. Start it with: env -u {variable} ..."
        )


def targets_of(names: Sequence[str], marked: Sequence[str], config: Path | None) -> list[Target]:
    """The handlers that are asked for, those of the file first.

    Args:
        names: What each ``--to`` says.
        marked: What each ``--option`` says, with the number of its ``--to``.
        config: A TOML file with a table ``[[to]]`` for each handler.

    Raises:
        click.UsageError: There is none, or an option before the first, or the file is no such one.
    """
    targets = [] if config is None else _read_config(config)
    pairs = [(int(number), text) for number, _, text in (one.partition(MARK) for one in marked)]
    if any(number == 0 for number, _ in pairs):
        raise click.UsageError("--option belongs to the --to before it: --to NAME --option ...")
    targets += [
        Target(name, tuple(text for number, text in pairs if number == place))
        for place, name in enumerate(names, start=1)
    ]
    if not targets:
        raise click.UsageError("No handler is given. Write --to NAME, or --config FILE.")
    return targets


@contextmanager
def attached(registry: Registry, targets: Sequence[Target]) -> Iterator[list[SinkAttachment]]:
    """Attach the handlers, each on a worker that drops nothing; detach them at the end.

    Raises:
        click.ClickException: One cannot be attached.
    """
    from handlers import detach_all  # noqa: PLC0415 -- after check_process

    with ExitStack() as stack:
        attachments: list[SinkAttachment] = []
        for target in targets:
            taken = [attachment.id for attachment in attachments]
            attachments.append(stack.enter_context(_attach(registry, target, taken)))
        try:
            yield attachments
        finally:
            detach_all()  # together: several that hang cost as long as one


def _attach(registry: Registry, target: Target, taken: Sequence[object]) -> SinkAttachment:
    import handlers  # noqa: PLC0415 -- commands that need none start without

    options = options_of(target)
    options.setdefault("id", _free(target.handler, taken))
    try:
        return handlers.attach(
            target.handler, registry=registry, background=True, overflow="block", **options
        )
    except OSError as error:
        # What a handler says itself stands where the system's reason would.
        said = error.strerror if error.filename is None else None
        raise click.ClickException(said or str(error)) from error
    except (ImportError, TypeError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def options_of(target: Target) -> dict[str, Any]:
    """The options of a handler, read and checked.

    Raises:
        click.ClickException: There is no such handler, or no such option.
    """
    from handlers.lookup import find_factory  # noqa: PLC0415 -- as above

    try:
        factory = find_factory(target.handler)
        options = read_options(target.handler, factory, target.given, COMMON)
        if "events" in options:
            options["events"] = [check_pattern(tuple(one.split("."))) for one in options["events"]]
    except (ImportError, TypeError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    return options


def _free(name: str, taken: Sequence[object]) -> str:
    """An id that no other has: the name, or the name with a number."""
    ids = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(one for one in ids if one not in taken)


def _read_config(path: Path) -> list[Target]:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.UsageError(f"The file {str(path)!r} cannot be read: {error}") from error
    tables = settings.pop("to", None)
    if settings or not isinstance(tables, list) or not all(map(_is_target, tables)):
        raise click.UsageError(
            f"The file {str(path)!r} must have a table [[to]] for each handler, with its name as "
            'handler = "NAME" and its options, and nothing else.'
        )
    return [
        Target(table["handler"], tuple((k, v) for k, v in table.items() if k != "handler"))
        for table in tables
    ]


def _is_target(table: object) -> bool:
    return isinstance(table, dict) and isinstance(table.get("handler"), str)
