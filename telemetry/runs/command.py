"""The command line, as it may be shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

HIDDEN: Final = "***"
MAX_COMMAND: Final = 2000
"""Characters."""
MAX_ARGUMENT: Final = 200
"""Characters; the text of a script after ``-c`` is an argument."""

_LOOKED_AT: Final = 4 * MAX_ARGUMENT
_ALL_LOOKED_AT: Final = 8 * MAX_COMMAND
"""Characters; patterns take their time, and a run is to start."""

# Plurals only where the word before them says what they open: --max-tokens and --tokenizer are in
# every second command line. Of a word that goes on, such as --keyboard, nothing is hidden either.
_NAME: Final = (
    r"(?:(?i:secret|passw|passphrase|credential|authorization|bearer|cookie|webhook)"
    r"|(?i:api|access|auth|private)[-_.]?(?i:keys|tokens)"
    r"|(?i:key|token|pass|pwd|auth)(?![a-z]))"
)
_SECRET: Final = re.compile(_NAME)
_BARE_NAME: Final = re.compile(r"[-+~\w./@]{1,200}")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,100}")
_OPTION: Final = re.compile(r"--[A-Za-z]")
_ANY_OPTION: Final = re.compile(r"--?[A-Za-z]")
_SCRIPT_NEXT: Final = re.compile(r"-[A-Za-z]*c")
_COLON: Final = r"[\\\"'\]]{0,6}\s{0,8}[:=]>?\s{0,8}"
_ASSIGNED: Final = re.compile(
    rf"({_NAME}[\w.-]{{0,40}}{_COLON})"
    r"(?:(?i:bearer|basic|token)\s+)?"
    r"(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"  # a string, with its escapes
    r"|\\+[\"'].*?(?:\\[\"']|$)"  # a string in a string
    r"|[\[{(].*"  # a list: all that is left
    r"|[^\s,;&)}\]]+)",
    re.DOTALL,
)
# Several values, and words between them: all that is left of the line.
_HEADER: Final = re.compile(
    rf"((?i:authorization|cookie)[\w-]{{0,40}}{_COLON})[^\s\"'\\\[{{(][^\n]*"
)
_SHAPED: Final = re.compile(
    r"\b(?:sk|hf|gh[opsu]|github_pat|glpat|xox[a-z])[-_][\w-]{16,}|\bAKIA[A-Z0-9]{12,}"
    r"|\beyJ[\w-]{8,}\.[\w.-]+"
)
_SENDER: Final = re.compile(r"://(?:[^\s/@:]*:\S*@|[^\s/@]+@)")
_QUERY: Final = re.compile(r"(?<=[?&])([^=&#\s]+)=[^&#\s]+")
_HOOK: Final = re.compile(r"(?i)(://[^\s/]*)/\S*hook\S*|(://[^\s/]*hook[^\s/]*)/\S*")


def shown_command(arguments: Iterable[str]) -> str:
    """A command line in which what looks like a secret is ``***``.

    That is: the values of an option, variable or word with a name such as ``--api-key``,
    ``API_KEY=`` or ``"token":``, in a command that is one argument as well; what follows
    ``Authorization:`` and ``Cookie:``; user and password, and the values of the query, in a URL,
    and the path of a webhook's; the shape of well-known tokens; a script after ``-c`` that names
    any of these. It is cut to 2000 characters, each argument to 200.

    Example:
        >>> shown_command(["python", "train.py", "--api-key", "0123", "--lr", "0.1"])
        "python train.py --api-key '***' --lr 0.1"
        >>> shown_command(["train", "redis://me:pass@host/0", "HF_TOKEN=0123", "--tokenizer=gpt2"])
        "train 'redis://***@host/0' 'HF_TOKEN=***' --tokenizer=gpt2"
    """
    given = tuple(islice(arguments, MAX_COMMAND))
    some = tuple(_affordable(given))
    text = shlex.join(_shown(some)).encode("utf-8", "backslashreplace").decode("utf-8")
    return _cut(text if len(some) == len(given) else f"{text} …", MAX_COMMAND)


def shown_text(text: str) -> str:
    """A text in which what looks like a secret is ``***``, cut to 200 characters.

    Example:
        >>> shown_text("redis://me:pass@host/0")
        'redis://***@host/0'
    """
    shown = _without_secrets(text[:_LOOKED_AT]).encode("utf-8", "backslashreplace")
    return _cut(shown.decode("utf-8"), MAX_ARGUMENT)


def is_secret(name: str) -> bool:
    """Whether a name is that of a secret.

    Example:
        >>> is_secret("api_key"), is_secret("max_tokens")
        (True, False)
    """
    return bool(_SECRET.search(name))


def _affordable(arguments: Iterable[str]) -> Iterator[str]:
    left = _ALL_LOOKED_AT
    for argument in arguments:
        left -= min(len(argument), _LOOKED_AT)
        if left < 0:
            return
        yield argument


def _shown(arguments: Iterable[str]) -> Iterator[str]:
    ends: re.Pattern[str] | None = None  # what comes next and is no value of a secret's name
    further: re.Pattern[str] | None = None  # the same after the first value
    script_next = False
    for argument in arguments:
        name, equals, _ = argument[:_LOOKED_AT].partition("=")
        is_secret = bool(_SECRET.search(name))
        is_value = ends is not None and not ends.match(argument)
        if is_value or (script_next and _SECRET.search(argument)):
            yield HIDDEN
        elif equals and is_secret and _BARE_NAME.fullmatch(name):
            yield f"{name}={HIDDEN}"
        else:
            yield _cut(_without_secrets(argument[:_LOOKED_AT]), MAX_ARGUMENT)
        ends = further if is_value else None
        if is_secret and not equals and not is_value:
            ends, further = _names(argument)
        script_next = bool(_SCRIPT_NEXT.fullmatch(argument))


def _names(argument: str) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    """What ends the values that an argument with a secret's name announces, or None."""
    if _is_option(argument):
        return _OPTION, _ANY_OPTION
    return (_OPTION if _VARIABLE.fullmatch(argument) else None), None


def _without_secrets(text: str) -> str:
    text = _ASSIGNED.sub(rf"\1{HIDDEN}", _HEADER.sub(rf"\1{HIDDEN}", text))
    text = _SHAPED.sub(HIDDEN, text)
    if "://" in text:
        if "hook" in text.lower():
            text = _HOOK.sub(lambda match: f"{match[1] or match[2]}/{HIDDEN}", text)
        text = _QUERY.sub(rf"\1={HIDDEN}", _SENDER.sub(f"://{HIDDEN}@", text))
    words = text.split()
    is_command = len(words) > 1 and any(_is_option(word) and _SECRET.search(word) for word in words)
    return " ".join(_shown(words)) if is_command else text


def _is_option(word: str) -> bool:
    return word.lstrip("\"'").startswith("-")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
