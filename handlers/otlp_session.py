"""Requests to an OTLP endpoint: how each ended, which the vendor's exporters do not tell."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, Final

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no types

from handlers.retrying import retry_after
from handlers.secrets import HTTP_LOGGERS, Secrets
from handlers.text import shorten

EXPORTING: Final[ContextVar[bool]] = ContextVar("trainbus_otlp_exporting", default=False)
"""Set while an exporter of ours runs."""

PROTOBUF: Final = "application/x-protobuf"
MOST_SAID: Final = 300
"""Characters that are shown of what the other end says about a failure."""
_EXPORTERS: Final = tuple(
    f"opentelemetry.exporter.otlp.proto.http.{name}"
    for name in ("trace_exporter", "metric_exporter", "_log_exporter")
)
LOGGERS: Final = (*HTTP_LOGGERS, *_EXPORTERS, "opentelemetry.util.re")
"""Under which names secrets could be logged: the last one reads the variables."""


class RequestFailedError(requests.RequestException):
    """A request did not succeed. What is said of it has no secrets.

    It is none of the errors that the exporters try again after: `Retrying` does that, within the
    worker's patience.

    Attributes:
        status: The HTTP status; None if there was no answer.
        retry_after: Seconds that the other end asks for.
    """

    def __init__(self, said: str, *, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(said)
        self.status = status
        self.retry_after = retry_after

    @property
    def passes(self) -> bool:
        """Whether another attempt may succeed."""
        if self.status is None:
            return True
        waits = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
        return self.status in waits or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


class Session(requests.Session):
    """A session for one exporter.

    Args:
        answers: The class of the message that the other end answers with.
        secrets: What must not be shown.

    Attributes:
        failure: How the last request failed; None if it did not.
        rejected: How many items of it the other end did not take.
        because: What it said about that.
    """

    def __init__(self, answers: Any, secrets: Secrets) -> None:
        super().__init__()
        self._answers = answers
        self._secrets = secrets
        self.forget()

    def forget(self) -> None:
        """Forget how the last request ended."""
        self.failure: RequestFailedError | None = None
        self.rejected = 0
        self.because = ""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, and remember how it ended.

        Raises:
            RequestFailedError: There was no answer, or one that is not 2xx.
        """
        self.forget()
        try:
            # Not elsewhere: with the headers that are secret, and, to most places, as a GET.
            answer = super().request(*args, **{**kwargs, "allow_redirects": False})
        except requests.RequestException as error:
            said = self._secrets.redact(f"{type(error).__name__}: {error}")
            self.failure = RequestFailedError(said)
            raise self.failure from None
        if not HTTPStatus.OK <= answer.status_code < HTTPStatus.MULTIPLE_CHOICES:
            self.failure = self._failure(answer)
            raise self.failure
        if answer.headers.get("Content-Type", "").startswith(PROTOBUF):
            self._read(answer.content)
        return answer

    def _read(self, content: bytes) -> None:
        """Partial success: https://opentelemetry.io/docs/specs/otlp/#partial-success-1."""
        try:
            partial: Any = self._answers.FromString(content)
        except DecodeError:
            return  # the status alone says that it was taken
        partial = partial.partial_success
        for field, value in partial.ListFields():
            if field.name.startswith("rejected_"):
                self.rejected = value
        self.because = self._secrets.redact(partial.error_message)

    def _failure(self, answer: requests.Response) -> RequestFailedError:
        is_text = answer.headers.get("Content-Type", "").startswith("text/")
        # Redacted before it is cut: of a secret in two halves, neither would be found.
        said = shorten(self._secrets.redact(answer.text.strip()), MOST_SAID) if is_text else ""
        about = self._secrets.redact(f"{answer.status_code} {answer.reason}")
        return RequestFailedError(
            f"{about}{f': {said}' if said else ''}",
            status=answer.status_code,
            retry_after=retry_after(answer.headers.get("Retry-After")),
        )


class _Quiet(logging.Filter):
    """Drops what an exporter logs about each failure of ours: `Retrying` says it once."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is logged."""
        return not EXPORTING.get()


_QUIET: Final = _Quiet()


def quiet_exporters() -> None:
    """Keep the exporters from logging while ours run; those of the program log as ever."""
    for name in _EXPORTERS:
        logging.getLogger(name).addFilter(_QUIET)
