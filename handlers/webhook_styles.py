"""How Slack, Discord and others want a message."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final
from urllib.parse import urlsplit

import orjson

_DISCORD_HOST: Final = re.compile(r"([a-z]+\.)?discord(app)?\.com")
_DISCORD_PATH: Final = re.compile(r"/api/(v\d+/)?webhooks/")
_SLACK_HOST: Final = re.compile(r"hooks\.slack(-gov)?\.com")
_DISCORD_MARKS: Final = re.compile(r"([\\*_~`|<>\[\]#])")
_SPLIT_ESCAPE: Final = re.compile(r"(&[a-z]{0,3}|\\)$")
_SLACK_ESCAPES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True)
class Style:
    """What a place of messages asks for.

    Attributes:
        name: As it is given to the option ``style``.
        limit: Characters of a message, in units of UTF-16, of which an emoji has two.
        per_second: How many messages a second it takes in the long run.
        escape: Makes a value harmless.
        encode: What is posted for a text.
    """

    name: str
    limit: int
    per_second: float
    escape: Callable[[str], str]
    encode: Callable[[str], bytes | str]

    def body(self, text: str) -> bytes | str:
        """What is posted for a text, which is cut where it is too long."""
        # Half a surrogate pair has no form in UTF-8.
        return self.encode(cut(text.encode(errors="backslashreplace").decode(), self.limit))


def escape_slack(text: str) -> str:
    """Slack's three control characters: without them there is no mention and no link.

    Source: https://docs.slack.dev/messaging/formatting-message-text

    Example:
        >>> escape_slack("a<b & <!channel>")
        'a&lt;b &amp; &lt;!channel&gt;'
    """
    return text.translate(_SLACK_ESCAPES)


def escape_discord(text: str) -> str:
    r"""Discord's markdown as plain text. Mentions are switched off in the payload.

    Example:
        >>> print(escape_discord("my_model *v2*"))
        my\_model \*v2\*
    """
    return _DISCORD_MARKS.sub(r"\\\1", text)


def cut(text: str, limit: int) -> str:
    """At most so many units of UTF-16, with no character and no escape cut in two.

    Example:
        >>> cut("abcdef", 4), cut("ab&amp;", 6)
        ('abc…', 'ab…')
    """
    units = text.encode("utf-16-le", "replace")
    if len(units) <= 2 * limit:
        return text
    kept = units[: 2 * (limit - 1)].decode("utf-16-le", "ignore")
    return _SPLIT_ESCAPE.sub("", kept) + "…"


SLACK: Final = Style("slack", 40_000, 1.0, escape_slack, lambda text: orjson.dumps({"text": text}))
"""Limits: https://docs.slack.dev/apis/web-api/rate-limits and .../messaging (truncating)."""

DISCORD: Final = Style(
    "discord",
    2_000,
    0.5,
    escape_discord,
    lambda text: orjson.dumps({"content": text, "allowed_mentions": {"parse": []}}),
)
"""Limits: https://docs.discord.com/developers/resources/webhook (execute webhook)."""

APPRISE: Final = Style("apprise", 30_000, 1.0, str, str)
"""Whatever of the services of apprise it is; apprise itself cuts what a service finds too long."""

CHATS: Final = {style.name: style for style in (SLACK, DISCORD, APPRISE)}
JSON: Final = "json"
JSON_PER_SECOND: Final = inf


def guess(url: str) -> str:
    """The style of a URL of HTTP by its host.

    Example:
        >>> guess("https://hooks.slack.com/services/T0/B0/x"), guess("https://example.org/hook")
        ('slack', 'json')
    """
    split = urlsplit(url)
    host = split.hostname or ""
    if _SLACK_HOST.fullmatch(host):
        return "slack"
    if _DISCORD_HOST.fullmatch(host) and _DISCORD_PATH.match(split.path):
        return "discord"
    return JSON
