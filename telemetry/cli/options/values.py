"""A text as the value that an option of a handler takes."""

from __future__ import annotations

import os
import types
from collections.abc import Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin

import orjson

from telemetry.viewer.logs.sources import at_home

TRUE: Final = ("true", "yes", "on", "1")
FALSE: Final = ("false", "no", "off", "0")
NONE: Final = ("none", "null")
FILE: Final = "@"
VARIABLE: Final = "env:"


def resolve(text: str, kind: object = str) -> tuple[str, bool]:
    """What a text stands for, and whether it came from elsewhere, so that it must not be shown.

    Args:
        text: ``@FILE`` is the text in a file without the line's end, ``env:NAME`` that of an
            environment variable, ``@@text`` the text ``@text``. Anything else is itself.
        kind: What the option takes. A list of texts may have one that begins with ``env:``.

    Raises:
        ValueError: The file cannot be read, or the variable is not set.

    Example:
        >>> os.environ["TOKEN"] = "0123"
        >>> resolve("env:TOKEN"), resolve("@@here"), resolve("env:test", list[str])
        (('0123', True), ('@here', False), ('env:test', False))
        >>> del os.environ["TOKEN"]
    """
    if text.startswith(FILE * 2):
        return text.removeprefix(FILE), False
    if text.startswith(FILE):
        return _read(text.removeprefix(FILE)), True
    if text.startswith(VARIABLE) and not any(map(_is_list, members(kind))):
        name = text.removeprefix(VARIABLE)
        if name not in os.environ:
            raise ValueError(f"The environment variable {name!r} is not set.")
        return os.environ[name], True
    return text, False


def parse(text: str, kind: object) -> Any:
    """The value of an option that is annotated with a type.

    Args:
        text: What was written, resolved.
        kind: A type, a union of types, a ``Literal``, or ``Any``.

    Raises:
        ValueError: It is nothing that the option takes; the message says what it does take.

    Example:
        >>> parse("8125", int | None), parse("none", int | None), parse("0.5", float)
        (8125, None, 0.5)
        >>> parse("true", bool), parse("env:a,team:b", list[str]), parse('["a"]', list[str])
        (True, ['env:a', 'team:b'], ['a'])
    """
    kinds = members(kind)
    for read in (_none, _choice, _truth, _number, _structure, _plain):
        found = read(text, kinds)
        if found:
            return found[0]
    raise ValueError(f"Allowed: {describe(kind)}.")


def describe(kind: object) -> str:
    """What an option takes, in words.

    Example:
        >>> describe(Literal["statsd", "datadog"] | None), describe(int)
        ("'statsd', 'datadog', none", 'an integer')
    """
    kinds = members(kind)
    words = [
        repr(choice) for one in kinds if get_origin(one) is Literal for choice in get_args(one)
    ]
    words += [_WORDS[one] for one in kinds if one in _WORDS]
    words += ["JSON for a list"] if any(map(_is_list, kinds)) else []
    words += ["JSON for an object"] if any(map(_is_mapping, kinds)) else []
    if not words:
        return "a Python object, which a command line cannot give"
    return ", ".join(dict.fromkeys([*words, "none"] if type(None) in kinds else words))


def members(kind: object) -> tuple[Any, ...]:
    """The types of a union, or the one type.

    Example:
        >>> members(int | None) == (int, type(None)), members(str) == (str,)
        (True, True)
    """
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(inner for member in get_args(kind) for inner in members(member))
    return (Any,) if kind is object else (kind,)


_WORDS: Final = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Any: "anything",
}

Found = tuple[()] | tuple[Any]


def _none(text: str, kinds: tuple[Any, ...]) -> Found:
    return (None,) if type(None) in kinds and text.lower() in NONE else ()


def _choice(text: str, kinds: tuple[Any, ...]) -> Found:
    choices = [choice for one in kinds if get_origin(one) is Literal for choice in get_args(one)]
    return (text,) if text in choices else ()


def _truth(text: str, kinds: tuple[Any, ...]) -> Found:
    if bool not in kinds or text.lower() not in TRUE + FALSE:
        return ()
    return (text.lower() in TRUE,)


def _number(text: str, kinds: tuple[Any, ...]) -> Found:
    for one in (int, float):
        if one in kinds:
            try:
                return (one(text),)
            except ValueError:
                continue
    return ()


def _structure(text: str, kinds: tuple[Any, ...]) -> Found:
    lists, objects = any(map(_is_list, kinds)), any(map(_is_mapping, kinds))
    allowed: tuple[type, ...] = (list,) * lists + (dict,) * objects
    if Any in kinds:
        allowed = (list, dict, int, float, bool)
    if not allowed:
        return ()
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if isinstance(value, allowed):
        return (value,)
    if lists and text[:1] not in ("[", "{"):
        return ([part.strip() for part in text.split(",")] if text.strip() else [],)
    return ()


def _plain(text: str, kinds: tuple[Any, ...]) -> Found:
    return (text,) if Any in kinds or any(one is str or _is_path(one) for one in kinds) else ()


def _is_list(kind: Any) -> bool:
    """Whether a list of texts is one."""
    made = get_origin(kind) or kind
    return isinstance(made, type) and issubclass(list, made) and _of_text(kind)


def _is_mapping(kind: Any) -> bool:
    made = get_origin(kind) or kind
    return isinstance(made, type) and issubclass(made, Mapping) and issubclass(dict, made)


def _of_text(kind: Any) -> bool:
    inner = get_args(kind)[:1]
    return not inner or inner[0] in (Any, object) or str in members(inner[0])


def _is_path(kind: Any) -> bool:
    made = get_origin(kind) or kind
    return isinstance(made, type) and issubclass(made, os.PathLike)


def _read(path: str) -> str:
    try:
        return at_home(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"The file {path!r} cannot be read: {reason}.") from None
