"""The options of the Datadog handler, completed from the environment and checked."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypedDict
from urllib.parse import urlsplit

from handlers import dogstatsd_text as text
from handlers.datadog_checks import check_rate, checked_tags, is_host, shown
from handlers.datagrams import Address
from handlers.secrets import Secrets, check_url, parts_of_url, redact_urls

TransportName: TypeAlias = Literal["agent", "api"]
Dialect: TypeAlias = Literal["datadog", "statsd"]

DEFAULT_HOST: Final = "localhost"
DEFAULT_PORT: Final = 8125
DEFAULT_SITE: Final = "datadoghq.com"
LONGEST_PATH: Final = 103
"""Bytes of a Unix socket's path, on the system that allows the fewest."""

_PORTS: Final = range(1, 65536)
_YES: Final = frozenset({"true", "1", "yes", "on"})
_NO: Final = frozenset({"false", "0", "no", "off"})
_SITE: Final = re.compile(r"[A-Za-z0-9.-]+")
_AGENT_VARIABLES: Final = (
    "DD_AGENT_HOST",
    "DD_DOGSTATSD_PORT",
    "DD_DOGSTATSD_URL",
    "DD_DOGSTATSD_SOCKET",
)
_TAGS_OF: Final = {
    "DD_ENTITY_ID": "dd.internal.entity_id",
    "DD_ENV": "env",
    "DD_SERVICE": "service",
    "DD_VERSION": "version",
}


class Common(TypedDict, total=False):
    """What the handler and the client are both given, under the same name."""

    host: str | None
    port: int | None
    socket_path: str | None
    transport: TransportName | None
    api_key: str | None
    app_key: str | None
    api_host: str | None
    dialect: Dialect
    sample_rate: float
    max_tag_values: int
    enabled: bool | None


class Options(Common, total=False):
    """All options."""

    namespace: str | None
    tags: Iterable[str]


@dataclass(frozen=True, slots=True)
class Settings:
    """What was decided.

    Attributes:
        disabled: Why nothing is to be sent, "" if it is.
        transport: Over what it is sent.
        address: Where the agent listens.
        api_url: The HTTP API.
        headers: Those of the API, with the keys.
        key_from: Where the API key comes from, in words.
        secrets: The keys.
        namespace: What names of metrics begin with.
        tags: What everything is tagged with.
        dialect: What the agent understands.
        sample_rate: The probability with which a point is sent.
        max_tag_values: How many values a tag may have.
    """

    disabled: str
    transport: TransportName
    address: Address
    api_url: str = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    key_from: str
    secrets: Secrets
    namespace: str
    tags: tuple[str, ...]
    dialect: Dialect
    sample_rate: float
    max_tag_values: int


def settings_of(handler_id: Hashable, given: Options) -> Settings:
    """Complete the options from the environment, and check all of it.

    An option wins over a variable that begins with ``DATADOG_``, and that over one with ``DD_``.

    Raises:
        TypeError: An option is of a wrong type.
        ValueError: An option or a variable has a wrong value.
    """
    return _Reader(handler_id, given, os.environ).settings()


class _Reader:
    def __init__(self, handler_id: Hashable, given: Options, variables: Mapping[str, str]) -> None:
        self._who = f"Handler {handler_id!r}"
        self._id = handler_id
        self._given: Mapping[str, Any] = given
        self._variables = {name: value for name, value in variables.items() if value}

    def settings(self) -> Settings:
        dialect: Dialect = self._choice("dialect", ("datadog", "statsd"), default="datadog")
        transport = self._transport(dialect)
        address = self._address()
        api_key, key_from = self._key("api_key", "DATADOG_API_KEY", "DD_API_KEY")
        app_key, _ = self._key("app_key", "DATADOG_APP_KEY", "DD_APP_KEY")
        api_url = self._api_url()
        disabled = self._disabled(transport)
        if transport == "api" and not api_key and not disabled:
            raise ValueError(
                f"{self._who} has no API key for {redact_urls(api_url)}. Set DATADOG_API_KEY or "
                "DD_API_KEY, or give api_key=...; an agent needs none: transport='agent'."
            )
        headers = {"DD-API-KEY": api_key, "DD-APPLICATION-KEY": app_key}
        return Settings(
            disabled=disabled,
            transport=transport,
            address=address,
            api_url=api_url,
            headers={name: key for name, key in headers.items() if key},
            key_from=key_from,
            secrets=Secrets(api_key, app_key, *parts_of_url(api_url)),
            namespace=self._namespace(),
            tags=self._tags(),
            dialect=dialect,
            sample_rate=self._rate(),
            max_tag_values=self._count(),
        )

    def _transport(self, dialect: Dialect) -> TransportName:
        asked: TransportName | None = self._choice("transport", ("agent", "api"), default=None)
        has_key = any(self._given.get(option) for option in ("api_key", "api_host"))
        has_agent = any(self._given.get(option) for option in ("host", "port", "socket_path"))
        # Datadog's own clients read this one; DD_API_KEY is there for the Agent on many machines.
        says_key = "DATADOG_API_KEY" in self._variables and dialect == "datadog"
        says_agent = any(name in self._variables for name in _AGENT_VARIABLES)
        wants_api = has_key or (says_key and not says_agent)
        transport = asked or ("api" if wants_api and not has_agent else "agent")
        if transport == "api" and (dialect == "statsd" or has_agent):
            other = "dialect='statsd'" if dialect == "statsd" else "host, port or socket_path"
            raise ValueError(
                f"{self._who}: {other} speaks of an agent, but transport is 'api'. "
                "Give transport='agent', or leave it out."
            )
        return transport

    def _address(self) -> Address:
        host, path = self._string("host"), self._string("socket_path")
        port = self._given.get("port")
        if path and (host or port is not None):
            raise ValueError(
                f"{self._who} has both socket_path={path!r} and a host or port. Give one of them."
            )
        if port is not None:
            self._check_port(port)
        if host:
            self._check_host(host, "host")
        if path:
            return self._unix(path, "socket_path")
        variables = self._variables
        if host is None and port is None:
            if url := variables.get("DD_DOGSTATSD_URL"):
                return self._address_of_url(url)
            if path := variables.get("DD_DOGSTATSD_SOCKET"):
                return self._unix(path, "DD_DOGSTATSD_SOCKET")
        if host is None and (host := variables.get("DD_AGENT_HOST")):
            self._check_host(host, "DD_AGENT_HOST")
        return Address(host or DEFAULT_HOST, port if port is not None else self._port_variable())

    def _check_host(self, host: str, source: str) -> None:
        if not is_host(host):
            raise ValueError(
                f"{self._who}: {source} is {shown(host)!r}. Allowed: a name or an address, such "
                f"as {DEFAULT_HOST!r}; the port is an option of its own."
            )

    def _address_of_url(self, url: str) -> Address:
        try:
            split = urlsplit(url)
            port = split.port
        except ValueError:
            split, port = urlsplit(""), None
        if split.scheme in ("unix", "unixgram", "unixstream") and split.path:
            return self._unix(url, "DD_DOGSTATSD_URL")
        if split.scheme == "udp" and is_host(split.hostname or "") and port != 0:
            return Address(split.hostname or "", port or DEFAULT_PORT)
        raise ValueError(
            f"{self._who}: DD_DOGSTATSD_URL is {shown(url)!r}. Allowed: "
            "'udp://localhost:8125' or 'unix:///var/run/datadog/dsd.socket'."
        )

    def _unix(self, path: str, source: str) -> Address:
        address = Address("", 0, path)
        size = len(os.fsencode(address.file))
        if "\0" in path or not 0 < size <= LONGEST_PATH:
            raise ValueError(
                f"{self._who}: {source} is {path!r}. Allowed: the path of a Unix socket, of at "
                f"most {LONGEST_PATH} bytes, such as '/var/run/datadog/dsd.socket'."
            )
        return address

    def _port_variable(self) -> int:
        given = self._variables.get("DD_DOGSTATSD_PORT", str(DEFAULT_PORT))
        port = int(given) if given.isascii() and given.isdigit() else 0
        if port not in _PORTS:
            raise ValueError(
                f"{self._who}: DD_DOGSTATSD_PORT is {given!r}. Allowed: 1 to 65535, usually 8125."
            )
        return port

    def _check_port(self, port: object) -> None:
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(
                f"{self._who}: port must be an integer, got {port!r} "
                f"({type(port).__name__}). Write port={DEFAULT_PORT}."
            )
        if port not in _PORTS:
            raise ValueError(
                f"{self._who}: port is {port!r}. Allowed: 1 to 65535, usually {DEFAULT_PORT}."
            )

    def _key(self, option: str, *variables: str) -> tuple[str, str]:
        """A key, and where it comes from. No error shows it."""
        given = self._given.get(option)
        if given is not None and not isinstance(given, str):
            raise TypeError(
                f"{self._who}: {option} must be a string, got {type(given).__name__}. "
                f"Better than an option is the variable {variables[0]}."
            )
        sources = [(f"the option {option}", given or "")]
        sources += [(f"the variable {name}", self._variables.get(name, "")) for name in variables]
        source, key = next(((s, k.strip()) for s, k in sources if k.strip()), ("nowhere", ""))
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(
                f"{self._who}: the key in {source} has characters that no key has. "
                "Copy it again from Organization Settings, without quotation marks."
            )
        return key, source

    def _api_url(self) -> str:
        site = self._variables.get("DD_SITE", DEFAULT_SITE)
        url = self._string("api_host") or self._variables.get("DATADOG_HOST")
        if url:
            option = "api_host" if self._given.get("api_host") else "DATADOG_HOST"
            example = f"https://api.{DEFAULT_SITE}"
            split = check_url(
                self._id, url, schemes=("https", "http"), example=example, option=option
            )
            if split.query or split.fragment:
                raise ValueError(
                    f"{self._who}: {option} is {redact_urls(url)!r}. Allowed: a URL without a "
                    f"query, such as {example!r}, to which the paths of the API are added."
                )
            return url
        if not _SITE.fullmatch(site):
            raise ValueError(
                f"{self._who}: DD_SITE is {shown(site)!r}. Allowed: the domain of your site, such "
                f"as {DEFAULT_SITE!r} or 'datadoghq.eu'."
            )
        return f"https://api.{site}"

    def _disabled(self, transport: TransportName) -> str:
        enabled = self._given.get("enabled")
        if not isinstance(enabled, bool | None):
            raise TypeError(
                f"{self._who}: enabled must be True, False or None (as DATADOG_ENABLED says), got "
                f"{enabled!r} ({type(enabled).__name__})."
            )
        # Datadog's own client reads this one by itself.
        if transport == "agent" and self._flag("DD_DOGSTATSD_DISABLE", default=False):
            return "DD_DOGSTATSD_DISABLE is set"
        if enabled is None:
            said = self._flag("DATADOG_ENABLED", default=True)
            return "" if said else f"DATADOG_ENABLED is {self._variables['DATADOG_ENABLED']!r}"
        return "" if enabled else "enabled is False"

    def _flag(self, variable: str, *, default: bool) -> bool:
        said = self._variables.get(variable)
        if said is None:
            return default
        if said.strip().lower() not in _YES | _NO:
            raise ValueError(f"{self._who}: {variable} is {said!r}. Allowed: 'true' or 'false'.")
        return said.strip().lower() in _YES

    def _namespace(self) -> str:
        given = self._string("namespace")
        if not given:
            return ""
        namespace = text.metric_name(given.rstrip("."))
        if namespace != given.rstrip("."):
            raise ValueError(
                f"{self._who}: namespace is {given!r}. Allowed: letters, digits, underscores and "
                f"periods, a letter first, such as {namespace!r}."
            )
        return namespace

    def _tags(self) -> tuple[str, ...]:
        """Tags of the option, then of each variable those whose key is not there yet."""
        given = self._given.get("tags") or ()
        own = list(checked_tags(self._who, given))
        for each in own:
            if not isinstance(each, str) or not text.tag(each):
                raise ValueError(
                    f"{self._who}: tags has {each!r}. Allowed: 'key:value' or 'word', a letter "
                    "first."
                )
        variables = self._variables
        unified = [
            f"{key}:{variables[name]}" for name, key in _TAGS_OF.items() if name in variables
        ]
        tags: list[str] = []
        for source in (own, _split(variables.get("DATADOG_TAGS", "")), unified,
                       _split(variables.get("DD_TAGS", ""))):  # fmt: skip
            keys = {tag.partition(":")[0] for tag in tags}
            fit = [tag for tag in map(text.tag, source) if tag]
            tags += [tag for tag in fit if tag.partition(":")[0] not in keys]
        return tuple(dict.fromkeys(tags))

    def _rate(self) -> float:
        rate = self._given.get("sample_rate", 1.0)
        check_rate(self._who, rate)
        return float(rate)

    def _count(self) -> int:
        count = self._given.get("max_tag_values", 1000)
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(
                f"{self._who}: max_tag_values must be an integer, got {count!r} "
                f"({type(count).__name__}). Allowed: 1 or more."
            )
        if count < 1:
            raise ValueError(f"{self._who}: max_tag_values is {count!r}. Allowed: 1 or more.")
        return count

    def _string(self, option: str) -> str | None:
        given = self._given.get(option)
        if given is None or isinstance(given, str):
            return given or None
        raise TypeError(
            f"{self._who}: {option} must be a string, got {given!r} ({type(given).__name__})."
        )

    def _choice(self, option: str, allowed: tuple[str, ...], *, default: str | None) -> Any:
        given = self._given.get(option)
        if given is not None and given not in allowed:
            raise ValueError(
                f"{self._who}: {option} is {given!r}. Allowed: {' or '.join(map(repr, allowed))}."
            )
        return given or default


def _split(tags: str) -> list[str]:
    """Tags as variables hold them: apart by commas, or else by spaces."""
    return [tag for tag in (tags.split(",") if "," in tags else tags.split()) if tag.strip()]
