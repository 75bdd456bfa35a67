"""Serves a page, until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import uvicorn

from telemetry.viewer.page.addresses import is_loopback
from telemetry.viewer.page.answers import Answers
from telemetry.viewer.page.app import create_app
from telemetry.viewer.page.live import Live

LINGER: Final = 1
"""Seconds that answers which are being given have when the page ends."""


class PageServer(uvicorn.Server):
    """Serves the page of some logs: ``run(sockets=[...])`` does, until the process is asked to end.

    Args:
        live: Looks at the logs.
        host: The address that is served on.
        token: What has to be known to see anything of the runs, None for nothing.
        settings: What the page begins with.
        started: Called when the page can be asked for.

    Raises:
        MissingExtraError: Something of the extra is not installed.
        ValueError: There is no token, and others can reach the address.
    """

    def __init__(
        self,
        live: Live,
        *,
        host: str,
        token: str | None,
        settings: dict[str, Any],
        started: Callable[[], None],
    ) -> None:
        if token is None and not is_loopback(host):
            raise ValueError(f"A page on {host!r}, which others can reach, needs a token.")
        super().__init__(
            uvicorn.Config(
                create_app(Answers(live, settings), live, host=host, token=token),
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=LINGER,
            )
        )
        self._live = live
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End because of a signal, and let go who listens, which would be waited for otherwise."""
        self._live.stop()
        super().handle_exit(sig, frame)
