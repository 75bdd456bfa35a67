"""The other ends of the sinks, as they are on a bad day: ``python -m benchmarks.bad_ends KIND``.

Kinds: ``hung`` takes what comes and never answers, ``refused`` does not listen, ``closed`` breaks
off in the middle of its answer, ``error`` answers 500 and 429 in turn, ``deaf`` listens and never
takes a connection. Prints the addresses as a line of JSON and lives until its standard input ends.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

KINDS: Final = ("hung", "refused", "closed", "error", "deaf")
LONGEST_HEAD: Final = 65_536

Answer = Callable[[socket.socket], None]


def main() -> None:
    kind, folder = sys.argv[1], Path(sys.argv[2])
    if kind not in KINDS:
        sys.exit(f"no kind {kind!r}. Choose from: {', '.join(KINDS)}")
    answers = _answers(kind)
    # What is bound and does not listen refuses, and nobody else can take its port meanwhile.
    held = [_bound(socket.SOCK_STREAM) for _ in range(2)]
    http, redis = held
    udp = _bound(socket.SOCK_DGRAM)
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = str(folder / "statsd.sock")
    unix.bind(path)
    if kind == "deaf":
        for listener in held:
            listener.listen(0)
    elif kind != "refused":
        for listener, answer in zip(held, answers, strict=True):
            listener.listen(64)
            threading.Thread(target=_serve, args=(listener, answer), daemon=True).start()
    else:
        unix.close()
    addresses = {"http": _port(http), "redis": _port(redis), "udp": _port(udp), "unix": path}
    if kind in ("refused", "closed"):
        udp.close()
    print(json.dumps(addresses), flush=True)
    sys.stdin.read()
    os._exit(0)


def _answers(kind: str) -> tuple[Answer, Answer]:
    statuses = itertools.cycle(
        [
            b"HTTP/1.1 500 Internal Server Error\r\n",
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n",
        ]
    )
    replies = itertools.cycle(
        [
            b"-LOADING Redis is loading the dataset in memory\r\n",
            b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        ]
    )

    def hang(connection: socket.socket) -> None:
        threading.Event().wait()

    def half_of_http(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 2")

    def half_of_redis(connection: socket.socket) -> None:
        connection.sendall(b"$100\r\nhalf")

    def http_error(connection: socket.socket) -> None:
        connection.sendall(next(statuses) + b"Content-Length: 0\r\nConnection: close\r\n\r\n")

    def redis_error(connection: socket.socket) -> None:
        connection.sendall(next(replies))

    return {
        "hung": (hang, hang),
        "refused": (hang, hang),
        "deaf": (hang, hang),
        "closed": (half_of_http, half_of_redis),
        "error": (http_error, redis_error),
    }[kind]


def _bound(kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind)
    bound.bind(("127.0.0.1", 0))
    return bound


def _port(bound: socket.socket) -> int:
    port: int = bound.getsockname()[1]
    return port


def _serve(listener: socket.socket, answer: Answer) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_handle, args=(connection, answer), daemon=True).start()


def _handle(connection: socket.socket, answer: Answer) -> None:
    with connection:
        try:
            if connection.recv(LONGEST_HEAD):
                answer(connection)
                # What was not read would make the kernel reset the connection, answer and all.
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(LONGEST_HEAD):
                    pass
        except OSError:
            return  # the client gave up


if __name__ == "__main__":
    main()
