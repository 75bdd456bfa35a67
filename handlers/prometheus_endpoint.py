"""Where Prometheus fetches metrics: an HTTP server in a thread of this process."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from handlers.records import Site


class Endpoint:
    """Serves a registry, from now until it is closed.

    Args:
        client: The package ``prometheus_client``.
        registry: What is served.
        site: Whose it is.
        addr: The address to listen on.
        port: The port, 0 for any that is free.

    Raises:
        OSError: The port is taken, or the address is none of this machine.
    """

    def __init__(
        self, client: ModuleType, registry: Any, site: Site, *, addr: str, port: int
    ) -> None:
        try:
            self._server, self._thread = client.start_http_server(port, addr, registry=registry)
        except OSError as error:
            raise OSError(
                error.errno,
                f"Handler {site.handler_id!r} cannot listen on {addr}:{port}: "
                f"{error.strerror or error}. Give an address of this machine and a port that is "
                "free: addr='127.0.0.1', port=0 for any.",
            ) from error
        self.port: int = self._server.server_port
        host = f"[{addr}]" if ":" in addr else addr
        self.url = f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def abandon(self) -> None:
        """In a forked child, which has no thread that serves: let go of the parent's port."""
        self._server.socket.close()
