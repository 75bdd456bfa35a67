"""Lines of text as datagrams, over UDP or a Unix socket."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from handlers.forks import renew_in_children
from handlers.patience import PATIENCE, given_up
from handlers.retrying import Retrying

UDP_SIZE: Final = 1432
UNIX_SIZE: Final = 8192
"""Bytes of a datagram, as Datadog's own clients have them."""
TIMEOUT: Final = 1.0
"""Seconds that a full Unix socket is waited for."""
REFUSAL: Final = 0.1
"""Seconds in which another machine says that nobody listens."""

_STREAM: Final = "unixstream://"
_SCHEMES: Final = ("unix://", "unixgram://", _STREAM)


class Address(NamedTuple):
    """Where datagrams go: a Unix socket if there is a path, else a host."""

    host: str
    port: int
    path: str = ""

    @property
    def size(self) -> int:
        """How many bytes a datagram has at most."""
        return UNIX_SIZE if self.path else UDP_SIZE

    @property
    def file(self) -> str:
        """The path without the scheme that it may have.

        Example:
            >>> Address("", 0, "unixgram:///run/dsd.socket").file
            '/run/dsd.socket'
        """
        return next((self.path[len(s) :] for s in _SCHEMES if self.path.startswith(s)), self.path)

    def __str__(self) -> str:
        return f"unix://{self.file}" if self.path else f"udp://{self.host}:{self.port}"


class Datagrams:
    """Sends lines, as many in a datagram as fit.

    Nothing is kept from one call to the next, so that a forked child has nothing of its parent's.

    Args:
        address: Where to.
        retrying: Repeats what fails.
    """

    def __init__(self, address: Address, retrying: Retrying) -> None:
        self.size = address.size
        self._socket = DatagramSocket(address)
        self._retrying = retrying

    def send(self, lines: Iterable[tuple[bytes, int]]) -> set[int]:
        """Send lines, none of which is longer than a datagram.

        Args:
            lines: Each with the number of the event that it belongs to.

        Returns:
            The numbers of the events of which something was lost; none if the worker gave up, whose
            owner counts them.
        """
        lost: set[int] = set()
        for datagram, events in packed(lines, self.size):
            sent = not given_up() and self._retrying(partial(self._socket.send, datagram), size=0)
            if given_up():
                return set()
            if not sent:
                lost |= events
        return lost

    def close(self) -> None:
        """Close the socket; a late line opens it again."""
        self._socket.close()


def packed(lines: Iterable[tuple[bytes, int]], size: int) -> Iterator[tuple[bytes, set[int]]]:
    r"""Datagrams of at most ``size`` bytes, with the numbers of the events in each.

    Example:
        >>> list(packed([(b"a:1|c", 0), (b"b:2|c", 0), (b"c:3|c", 1)], 11))
        [(b'a:1|c\nb:2|c', {0}), (b'c:3|c', {1})]
    """
    waiting: list[bytes] = []
    events: set[int] = set()
    length = -1
    for line, event in lines:
        if waiting and length + 1 + len(line) > size:
            yield b"\n".join(waiting), events
            waiting, events, length = [], set(), -1
        waiting.append(line)
        events.add(event)
        length += 1 + len(line)
    if waiting:
        yield b"\n".join(waiting), events


class DatagramSocket:
    """A socket that is opened when it is needed, and again after an error but a full queue.

    Args:
        address: Where it leads.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        renew_in_children(self)

    def after_fork(self) -> None:
        """Open one of our own."""
        self.close()

    def send(self, datagram: bytes) -> None:
        """Send a datagram.

        Raises:
            OSError: It did not arrive, as far as that can be known: a UDP host that is there and
                has nobody listening says so.
        """
        fresh = self._socket is None
        connected = self._socket or self._connect()
        self._socket = connected
        try:
            if connected.type is socket.SOCK_STREAM:
                connected.sendall(struct.pack("<I", len(datagram)) + datagram)
            else:
                connected.send(datagram)
            if not self._address.path:
                _raise_refusal(connected, wait=fresh)
        except OSError as error:
            # One that is full is not worn out: another would find room of its own, and be down
            # again after that. A stream may have taken a half.
            if not isinstance(error, TimeoutError) or connected.type is socket.SOCK_STREAM:
                self.close()
            raise

    def close(self) -> None:
        """Close it; the next datagram opens another."""
        connected, self._socket = self._socket, None
        if connected is not None:
            connected.close()

    def _connect(self) -> socket.socket:
        if not self._address.path:
            return _connect_udp(self._address)
        if self._address.path.startswith(_STREAM):
            return _connect_unix(self._address.file, socket.SOCK_STREAM)
        try:
            return _connect_unix(self._address.file, socket.SOCK_DGRAM)
        except OSError as error:
            if error.errno != errno.EPROTOTYPE:
                raise
            return _connect_unix(self._address.file, socket.SOCK_STREAM)


def _connect_udp(address: Address) -> socket.socket:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
    # An agent listens on IPv4 where "localhost" is both.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, kind, protocol, _, target = found[0]
    return _connected(socket.socket(family, kind, protocol), target)


def _connect_unix(path: str, kind: socket.SocketKind) -> socket.socket:
    return _connected(socket.socket(socket.AF_UNIX, kind), os.fsencode(path))


def _connected(new: socket.socket, target: object) -> socket.socket:
    try:
        new.settimeout(TIMEOUT)
        new.connect(target)  # type: ignore[arg-type]  # either family's address
    except OSError:
        new.close()
        raise
    return new


def _raise_refusal(connected: socket.socket, *, wait: bool) -> None:
    """Raise if nobody listens; on loopback that is known at once, from elsewhere it takes a while.

    A new connection is waited for, so that a place that is down is not found to be back with each
    attempt. Only a worker can wait.
    """
    if wait and PATIENCE.get() is not None:
        connected.settimeout(REFUSAL)
        with suppress(TimeoutError):
            connected.recv(1)
        connected.settimeout(TIMEOUT)
    code = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
