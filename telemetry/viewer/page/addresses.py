"""Where a page is served."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Final

PORT: Final = 7007
"""Where a page is served if no port is named and it is free, so that its address stays the same."""
TRIED: Final = 100
"""Ports behind a taken one that are tried."""
LAST: Final = 65535
LOCAL: Final = "localhost"


class PortTakenError(OSError):
    """Another program listens on the port."""


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that is listened on.

    Args:
        host: The address.
        port: The port; 0 for any that is free; None for `PORT`, or the first one behind it.

    Raises:
        PortTakenError: The port is taken; the next one that is free is named.
        OSError: The address is none of this machine's, or the port is not allowed.
    """
    try:
        return _bound(host, PORT if port is None else port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        taken = PORT if port is None else port
        free = _next_free(host, taken)
        if port is None and free is not None:
            return free
        other = "Give another: --port 0 takes any that is free."
        if free is not None:
            other = f"The next one that is free: --port {free.getsockname()[1]}."
            free.close()
        raise PortTakenError(
            errno.EADDRINUSE, f"Port {taken} of {host} is taken by another program. {other}"
        ) from error


def address_of(listening: socket.socket, host: str, token: str | None) -> str:
    """The page's address, with its token behind ``#``, which browsers do not send.

    Args:
        listening: The socket.
        host: As it was named.
        token: None where none is needed.
    """
    shown = socket.gethostname() if host in ("0.0.0.0", "::", "") else host  # noqa: S104 -- compared, not bound
    shown = f"[{shown}]" if ":" in shown else shown
    url = f"http://{shown}:{listening.getsockname()[1]}/"
    return url if token is None else f"{url}#token={token}"


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == LOCAL


def _bound(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


def _next_free(host: str, taken: int) -> socket.socket | None:
    for port in range(taken + 1, min(taken + TRIED, LAST) + 1):
        try:
            return _bound(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return None
    return None
