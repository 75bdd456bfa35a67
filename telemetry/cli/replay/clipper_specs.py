"""``--clipper NAME:KEY=VALUE,...``: gradient clippers on a command line."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_type_hints

import click
from click.shell_completion import CompletionItem

from telemetry.cli.options.values import describe, parse
from telemetry.errors import ShadowedPackageError
from telemetry.packages import check_package

if TYPE_CHECKING:
    from clipping import Clipper

HINT: Final = "--clipper"
ABOUT: Final = (
    "A clipper to run over the recorded gradient norms, with its options: autoclip, zscore or "
    "agc, as in autoclip:mode=percentile,percentile=95. Several times for several."
)


PERCENTILE_ONLY: Final = ("percentile", "history", "ema_decay")
"""Options of AutoClip that only one of its modes has, and so name it."""


class Named(NamedTuple):
    """A clipper that is to be run.

    Attributes:
        name: As it was written, with the mode that its options imply.
        clipper: The clipper.
        idle: Options that were written and change nothing, and why.
    """

    name: str
    clipper: Clipper
    idle: tuple[str, ...]


def read_clippers(given: Sequence[str]) -> list[Named]:
    """The clippers that are asked for.

    Args:
        given: Each as ``NAME`` or ``NAME:KEY=VALUE,KEY=VALUE``.

    Raises:
        click.BadParameter: A clipper or an option that there is not, a value that an option does
            not take, or the same clipper twice.
        click.ClickException: Another file hides the package of the clippers.

    Example:
        >>> [(name, clipper, _)] = read_clippers(["zscore:zmax=2.5,warmup_steps=10"])
        >>> clipper.zmax, clipper.warmup_steps, clipper.ema_decay
        (2.5, 10, 0.99)
    """
    try:
        check_package("clipping")
    except ShadowedPackageError as error:
        raise click.ClickException(str(error)) from error
    named = [_read(text.strip()) for text in given]
    names = [one.name for one in named]
    for name in names:
        if names.count(name) > 1:
            raise _bad(f"{name!r} is given twice. Each clipper is run once.")
    return named


def complete_clipper(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of clippers, and after a colon or a comma the options that one has."""
    name, colon, options = incomplete.partition(":")
    kinds = _kinds()
    if not colon:
        return [CompletionItem(each) for each in kinds if each.startswith(name)]
    before, comma, begun = options.rpartition(",")
    taken = [part.partition("=")[0] for part in before.split(",")]
    return (
        [
            CompletionItem(f"{name}:{before}{comma}{key}=", help=describe(hint))
            for key, hint in _options_of(kinds[name]).items()
            if key.startswith(begun) and key not in taken
        ]
        if name in kinds
        else []
    )


def _kinds() -> dict[str, type[Clipper]]:
    import clipping  # noqa: PLC0415 -- commands that need none start without

    return {kind.algo: kind for kind in (clipping.AutoClip, clipping.ZScoreClip, clipping.AGC)}


def _options_of(kind: type[Clipper]) -> dict[str, Any]:
    """The types of the constructor's arguments."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _read(text: str) -> Named:
    name, _, rest = text.partition(":")
    kinds = _kinds()
    if name not in kinds:
        hint = _nearest(name.lower(), kinds)
        raise _bad(f"There is no clipper {name!r}. There are: {', '.join(kinds)}.{hint}")
    options = _options(name, kinds[name], rest)
    if name == "autoclip" and "mode" not in options and set(PERCENTILE_ONLY) & set(options):
        options["mode"] = "percentile"
        text = f"{name}:mode=percentile,{rest}"
    try:
        clipper = kinds[name](**options)
    except (TypeError, ValueError) as error:
        raise _bad(f"{text!r} cannot be used. {error}") from error
    return Named(text, clipper, tuple(_idle(clipper, options)))


def _options(name: str, kind: type[Clipper], text: str) -> dict[str, Any]:
    allowed = _options_of(kind)
    options: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise _bad(
                f"{part!r} in {f'{name}:{text}'!r} must be KEY=VALUE, such as "
                f"{next(iter(allowed))}=VALUE; several are parted by commas."
            )
        if key not in allowed:
            hint = _nearest(key, allowed)
            raise _bad(f"{name} has no option {key!r}. Its options: {', '.join(allowed)}.{hint}")
        if key in options:
            raise _bad(f"{key!r} is given twice for {name}.")
        options[key] = _value(name, key, value, allowed[key])
    return options


def _value(name: str, key: str, text: str, kind: Any) -> Any:
    try:
        return parse(text, kind)
    except ValueError as error:
        raise _bad(f"{name}: {key}={text!r} cannot be used. {error}") from error


def _idle(clipper: Any, options: Iterable[str]) -> Iterable[str]:
    """Options that were given and mean nothing with the others, or to a replay."""
    for key in options:
        if clipper.algo == "autoclip":
            if key in PERCENTILE_ONLY and clipper.mode == "auto":
                yield f"{key} changes nothing with mode=auto; write mode=percentile"
            elif key == "ema_decay" and clipper.history == "window":
                yield "ema_decay changes nothing with history=window"
        if key == "exclude_bias_bn":
            yield "exclude_bias_bn changes nothing: groups are those that were recorded"
        if key == "dry_run" and clipper.dry_run and clipper.policy != "raise":
            yield "dry_run changes nothing: a replay never touches gradients"


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=HINT)
