"""``--option KEY=VALUE``: the options of handlers on a command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, get_type_hints

import click
from click.shell_completion import CompletionItem

from telemetry.cli.options.values import describe, parse, resolve

HINT: Final = "--option"
ABOUT: Final = (
    "An option of the handler. VALUE is what the option takes: a number, true or false, none, "
    "text, JSON. @FILE is the text in a file and env:NAME that of an environment variable, which "
    "keeps keys out of the shell's history; text that begins with @ is written with @@."
)


def read_options(
    name: str,
    factory: Callable[..., object],
    given: Iterable[str | tuple[str, Any]],
    common: Mapping[str, Any] | None = None,
    *,
    hidden: list[str] | None = None,
) -> dict[str, Any]:
    """The options of a handler, each as what its factory takes.

    Args:
        name: The handler's.
        factory: What takes them.
        given: Each as ``KEY=VALUE``, or as a key and a value: what a file of settings has.
        common: Options of all handlers that are allowed beside its own, with their types.
        hidden: Gets what came from a file or a variable.

    Raises:
        click.BadParameter: An option that the handler does not have, or one that it needs and that
            is missing, or a value of a wrong type. What comes from a file or a variable is
            not shown.

    Example:
        >>> from handlers.jsonl import create
        >>> read_options("jsonl", create, ["path=runs/metrics.jsonl"])
        {'path': 'runs/metrics.jsonl'}
    """
    kinds = kinds_of(factory)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in _parameters(factory))
    allowed = {**(common or {}), **kinds}
    options: dict[str, Any] = {}
    for item in given:
        key, value = _split(item) if isinstance(item, str) else item
        if key not in allowed and not takes_any:
            raise _bad(_unknown(name, key, list(kinds), list(common or {})))
        if key in options:
            raise _bad(f"{key!r} is given twice for the handler {name!r}.")
        kind = allowed.get(key, Any)
        options[key] = _value(key, value, kind, [] if hidden is None else hidden)
    _check_required(name, factory, options)
    return options


def kinds_of(factory: Callable[..., object]) -> dict[str, Any]:
    """The type of each option that a factory names.

    Example:
        >>> from handlers.memory import create
        >>> kinds_of(create)
        {'maxlen': int | None}
    """
    try:
        hints = get_type_hints(factory)
    except Exception:  # of another distribution, with types that are not imported, or are none
        hints = {}
    return {
        p.name: hints.get(p.name, Any)
        for p in _parameters(factory)
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }


def complete_handler(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of handlers that begin with what is written."""
    from handlers.lookup import known_names  # noqa: PLC0415 -- only where names are asked for

    return [CompletionItem(name) for name in known_names() if name.startswith(incomplete)]


def complete_option(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The options of the handler that is written before, as ``KEY=``."""
    from handlers.lookup import find_factory  # noqa: PLC0415 -- only where options are asked for

    names = [context.params.get("handler"), *(context.params.get("names") or ())]
    try:
        kinds = kinds_of(find_factory(names[-1]))
    except (ImportError, TypeError, ValueError):
        return []  # nothing to complete for a handler that is not there
    return [
        CompletionItem(f"{key}=", help=describe(kind))
        for key, kind in kinds.items()
        if f"{key}=".startswith(incomplete)
    ]


def _split(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        # Not shown: it can be a key in the other sense of the word.
        raise _bad("It must be KEY=VALUE, such as path=runs/metrics.jsonl.")
    return key.strip(), value


def _value(key: str, given: Any, kind: Any, hidden: list[str]) -> Any:
    """What is meant by a text; in a mapping, the values can stand for something as well."""
    if not isinstance(given, str):
        return _inner(key, given, hidden)
    resolved, from_elsewhere = _resolved(key, given, kind, hidden)
    value = _parsed(key, given, resolved, kind, from_elsewhere=from_elsewhere)
    return value if from_elsewhere else _inner(key, value, hidden)


def _inner(key: str, value: Any, hidden: list[str]) -> Any:
    if not isinstance(value, dict):
        return value
    return {
        name: _resolved(f"{key}, {name!r}", one, str, hidden)[0] if isinstance(one, str) else one
        for name, one in value.items()
    }


def _resolved(key: str, text: str, kind: Any, hidden: list[str]) -> tuple[str, bool]:
    try:
        resolved, from_elsewhere = resolve(text, kind)
    except ValueError as error:
        raise _bad(f"{key}: {error}") from None
    if from_elsewhere:
        hidden.append(resolved)
    return resolved, from_elsewhere


def _parsed(key: str, text: str, resolved: str, kind: Any, *, from_elsewhere: bool) -> Any:
    try:
        return parse(resolved, kind)
    except ValueError as error:
        # JSON can have a key in it; a number or one of several words cannot.
        is_plain = not from_elsewhere and "JSON" not in describe(kind)
        shown = repr(text) if is_plain else text if from_elsewhere else "what was given"
        raise _bad(f"{key}: {shown} cannot be used. {error}") from None


def _check_required(
    name: str, factory: Callable[..., object], options: Mapping[str, object]
) -> None:
    for p in _parameters(factory):
        needed = p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        if needed and p.name not in options:
            raise _bad(
                f"Handler {name!r} needs the option {p.name!r}. Write --option {p.name}=VALUE."
            )


def _parameters(factory: Callable[..., object]) -> list[inspect.Parameter]:
    """Without the first, which is the site."""
    return list(inspect.signature(factory).parameters.values())[1:]


def _unknown(name: str, key: str, own: list[str], common: list[str]) -> str:
    from handlers.lookup import suggestion  # noqa: PLC0415 -- the package is checked before

    known = f"Its options: {', '.join(own) or 'none'}"
    known += f"; those of all handlers: {', '.join(common)}." if common else "."
    return f"Handler {name!r} has no option {key!r}. {known}{suggestion(key, own + common)}"


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=HINT)
