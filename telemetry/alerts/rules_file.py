"""Rules from a TOML file."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from telemetry.alerts.problems import first_problem
from telemetry.alerts.rule import FIELDS, WRITTEN_AT, Rule
from telemetry.alerts.toml_lines import TomlLines

ARRAY: Final = "rule"
_REQUIRED: Final = ("name", "metric")
_PLACE: Final = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")


class _Wrong(NamedTuple):
    line: int
    text: str


def load(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """Rules from a file: a table ``[[rule]]`` for each, with the arguments of `Rule` as keys.

    Args:
        path: The file, in UTF-8.

    Returns:
        The rules, in the order of the file.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no TOML, has no rules, or rules that cannot be. The message has a line
            ``file:line: what is wrong`` for each of them.

    Warns:
        UserWarning: A measurement is probably misspelt; with the file and the line of it.

    Example:
        >>> text = '''
        ... [[rule]]
        ... name = "kl"
        ... metric = "rl.kl_divergence"
        ... above = 0.1
        ... clear = 0.08
        ... cooldwn = 60
        ... '''
        >>> _ = Path("rules.toml").write_text(text)
        >>> load("rules.toml")
        Traceback (most recent call last):
        ValueError: rules.toml:7: A rule has no 'cooldwn'. Did you mean 'cooldown'?
        >>> _ = Path("rules.toml").write_text(text.replace("cooldwn", "cooldown"))
        >>> load("rules.toml")[0].cooldown
        60.0
    """
    file = os.fspath(path)
    text = _text(Path(file))
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(_syntax(file, text, error)) from None
    lines = TomlLines(text, ARRAY)
    wrong = sorted(_look_at(read, lines))
    if wrong:
        raise ValueError("\n".join(f"{file}:{line}: {said}" for line, said in wrong))
    return tuple(
        _make(table, file, lines.of_key(index, "metric")) for index, table in enumerate(read[ARRAY])
    )


def _make(table: Mapping[str, Any], file: str, line: int) -> Rule:
    token = WRITTEN_AT.set((file, line))
    try:
        return Rule(**table)
    finally:
        WRITTEN_AT.reset(token)


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        # As tomllib counts lines.
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: The file is not UTF-8.") from None


def _syntax(file: str, text: str, error: tomllib.TOMLDecodeError) -> str:
    said = str(error)
    place = _PLACE.search(said)
    line = place[1] if place and place[1] else text.rstrip("\n").count("\n") + 1
    return f"{file}:{line}: No valid TOML: {_PLACE.sub('', said)}."


def _look_at(read: Mapping[str, Any], lines: TomlLines) -> Iterator[_Wrong]:
    for key in read:
        if key != ARRAY:
            yield _Wrong(lines.of_top(key), _unknown(f"The file has {key!r}", key, (ARRAY,)))
    tables = read.get(ARRAY, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        text = "'rule' must be an array of tables. Begin each rule with [[rule]]."
        yield _Wrong(lines.of_top(ARRAY), text)
        return
    if not tables and len(read) == (ARRAY in read):
        yield _Wrong(1, "The file has no rules. Begin each with [[rule]].")
    names: dict[object, int] = {}
    for index, table in enumerate(tables):
        yield from _look_at_rule(index, table, lines)
        name = table.get("name")
        if isinstance(name, str) and name in names:
            said = f"The rule of line {names[name]} has the name {name!r} too. Rename one of them."
            yield _Wrong(lines.of_key(index, "name"), said)
        elif isinstance(name, str):
            names[name] = lines.of_key(index, "name")


def _look_at_rule(index: int, table: Mapping[str, Any], lines: TomlLines) -> Iterator[_Wrong]:
    unknown = [key for key in table if key not in FIELDS]
    missing = [key for key in _REQUIRED if key not in table]
    for key in unknown:
        yield _Wrong(lines.of_key(index, key), _unknown(f"A rule has no {key!r}", key, FIELDS))
    for key in missing:
        example = {"name": '"kl"', "metric": '"rl.step.kl_divergence"'}[key]
        said = f"The rule has no {key!r}. Write {key} = {example}."
        yield _Wrong(lines.of_table(index), said)
    if not unknown and not missing:
        problem = first_problem(table)
        if problem is not None:
            key = problem.field.partition("[")[0]
            yield _Wrong(lines.of_key(index, key), problem.text)


def _unknown(what: str, key: str, allowed: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, allowed, n=1)
    if near:
        return f"{what}. Did you mean {near[0]!r}?"
    return f"{what}. Allowed: {', '.join(allowed)}."
