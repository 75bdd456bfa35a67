"""Messages to the services that apprise knows: by e-mail, ntfy, Telegram, Teams and many more."""

from __future__ import annotations

import re
import warnings
from typing import Any, Final

from handlers.records import Site
from handlers.secrets import HTTP_LOGGERS, Secrets, parts_of_url
from handlers.text import value_text
from handlers.webhook_client import BusyError, verdict
from telemetry.extras import import_extra

_STATUS: Final = re.compile(r"\berror=(\d{3})\b")


class AppriseClient:
    """Sends texts through `apprise <https://github.com/caronc/apprise>`_.

    Args:
        site: Whose.
        url: One of apprise's: ``ntfy://host/topic``, ``tgram://token/chat``.
        timeout: Seconds, for the connection and for the answer.

    Attributes:
        place: The URL as it may be shown.
        secrets: What must not be shown.

    Raises:
        ValueError: It is no URL that apprise knows.
    """

    def __init__(self, site: Site, url: str, timeout: float) -> None:
        apprise: Any = import_extra("apprise", extra="webhook", feature="Handler 'webhook'")
        self._site = site
        self.place = f"{url.partition('://')[0]}://***"
        self.secrets = Secrets(url, *parts_of_url(url), *re.split(r"[/?&=#:@]+", url)[1:])
        self.secrets.hide_in_logs(("apprise", *HTTP_LOGGERS))
        # No files of its own, and nothing of it that is kept between two runs.
        asset = apprise.AppriseAsset(storage_mode="memory")
        with warnings.catch_warnings():
            # It imports all its services, one of which needs a module that Python 3.13 lacks.
            warnings.simplefilter("ignore", DeprecationWarning)
            service = apprise.Apprise.instantiate(url, asset=asset)
        if not service:
            raise ValueError(
                f"Handler {site.handler_id!r}: url {self.place!r} is of no service that apprise "
                "knows, or lacks a part. They are listed at https://appriseit.com/services/."
            )
        service.socket_connect_timeout = service.socket_read_timeout = timeout
        service.request_rate_per_sec = 0.0  # it would sleep where nobody could wake it
        self._sender = apprise.Apprise(asset=asset)
        self._sender.add(service)

    def post(self, text: str) -> str:
        """Send a text once.

        apprise says what happened only in the log of the attempt, and the status only where
        the service is one of HTTP's.

        Returns:
            Nothing if it arrived, else why this one message is refused.

        Raises:
            BusyError: It would pass later, or nobody knows.
            CredentialsError: The service does not accept who is sending.
            DeliveryError: Nothing would ever pass.
        """
        result = self._sender.notify(body=text)
        if result:
            return ""
        logs = [entry.message for service in result for attempt in service for entry in attempt]
        said = value_text(self.secrets.redact(" ".join(logs)))
        status = _STATUS.search(said)
        if status is None:
            raise BusyError(said or "apprise does not say why", 0.0)
        return verdict(self._site, self.place, int(status[1]), said, 0.0)

    def close(self) -> None:
        """Nothing is open between two messages."""
