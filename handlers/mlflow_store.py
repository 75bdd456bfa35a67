"""Where MLflow keeps runs: a server, or an SQLite file."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, Final

from handlers.errors import CredentialsError
from handlers.records import Site
from handlers.retrying import retry_after
from handlers.secrets import redact_urls
from telemetry.extras import import_extra

TIMEOUT: Final = 5.0
"""Seconds for a request. MLflow's own are 120, with seven more attempts in up to ten minutes."""

_PASSING: Final = frozenset({408, 425, 429})
_TALKATIVE: Final = "mlflow.store.db.utils"

_quiet: Final[ContextVar[bool]] = ContextVar("trainbus_mlflow_quiet", default=False)


class PassingError(Exception):
    """The server cannot be reached or cannot answer now, or somebody has locked the file.

    Attributes:
        wait: Seconds that it asks to wait.
    """

    def __init__(self, said: str, wait: float = 0.0) -> None:
        super().__init__(said)
        self.wait = wait


def import_mlflow(module: str = "mlflow") -> Any:
    """A module of MLflow.

    Raises:
        MissingExtraError: It cannot be imported.
    """
    return import_extra(module, extra="mlflow", feature="The handler 'mlflow'")


def wait_after(error: Exception) -> float | None:
    """How long to wait at least after an error; None for one that does not pass."""
    return error.wait if isinstance(error, PassingError) else None


def open_server(site: Site, uri: str) -> Any:
    """A store behind HTTP; nothing is sent yet.

    It is MLflow's own, but for how a request is made: once, and with a time limit. Repeating it is
    up to the caller.
    """
    rest = import_mlflow("mlflow.utils.rest_utils")
    proto_json = import_mlflow("mlflow.utils.proto_json_utils")
    credentials = import_mlflow("mlflow.utils.credentials").get_default_host_creds
    store = import_mlflow("mlflow.store.tracking.rest_store").RestStore(partial(credentials, uri))
    endpoints = rest.extract_api_info_for_service(
        import_mlflow("mlflow.protos.service_pb2").MlflowService, "/api/2.0"
    )

    def call(api: Any, json_body: str, *_options: Any, **_more: Any) -> Any:
        path, method = endpoints[api]
        content = {"params" if method == "GET" else "json": json.loads(json_body)}
        response = _request(rest, store.get_host_creds(), path, method, content)
        _check(site, uri, response)
        answer = api.Response()
        proto_json.parse_dict(rest.verify_rest_response(response, path).json(), answer)
        return answer

    store._call_endpoint = call  # noqa: SLF001 -- MLflow has no other way to limit one client's retries
    return store


def open_file(site: Site, path: Path) -> Any:
    """A store in an SQLite file, which is made.

    Raises:
        OSError: The file cannot be written, is locked, or is something else.
        MlflowException: It is of another version of MLflow.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=TIMEOUT, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
    except (OSError, sqlite3.Error) as error:
        raise OSError(
            getattr(error, "errno", None),
            f"Handler {site.handler_id!r} cannot write the database {str(path)!r}: "
            f"{getattr(error, 'strerror', None) or error}. "
            "Give a file that can be written: tracking_uri='sqlite:///mlflow.db'.",
        ) from error
    if not any(isinstance(f, _Quiet) for f in logging.getLogger(_TALKATIVE).filters):
        logging.getLogger(_TALKATIVE).addFilter(_Quiet())
    with warnings.catch_warnings():  # MLflow's use of SQLAlchemy, which only MLflow can change
        warnings.simplefilter("ignore")
        import_mlflow("sqlalchemy")
        return import_mlflow("mlflow.tracking._tracking_service.utils")._get_store(  # noqa: SLF001 -- public only behind a client that reports its use to MLflow's makers
            f"sqlite:///{path}"
        )


@contextmanager
def one_call() -> Iterator[None]:
    """Around a call of a store: what passes is a `PassingError`, and nothing is logged.

    MLflow logs a traceback for each attempt at a locked file, and its errors are a page of SQL;
    that a place is down is said once, in a line.
    """
    token = _quiet.set(True)
    try:
        yield
    except import_mlflow("mlflow.exceptions").MlflowException as error:
        if error.error_code != "TEMPORARILY_UNAVAILABLE":
            raise
        raise PassingError(str(error).partition("\n")[0]) from None
    finally:
        _quiet.reset(token)


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _quiet.get()


def _request(rest: Any, credentials: Any, path: str, method: str, content: Any) -> Any:
    """One request, with MLflow's credentials, headers and options for TLS."""
    try:
        return rest.http_request(
            credentials,
            path,
            method,
            max_retries=0,
            retry_codes=frozenset(),
            raise_on_status=False,
            timeout=TIMEOUT,
            **content,
        )
    except import_mlflow("mlflow.exceptions").MlflowException as error:
        if error.error_code != "INTERNAL_ERROR":
            raise
        raise PassingError(redact_urls(str(error))) from None


def _check(site: Site, uri: str, response: Any) -> None:
    """Raise for what is no answer of MLflow's about the request."""
    status = response.status_code
    if status in _PASSING or status >= 500:  # noqa: PLR2004 -- HTTP's errors of servers
        raise PassingError(f"status {status}", retry_after(response.headers.get("Retry-After")))
    if status in (401, 403):
        variables = ", ".join(name for name in CREDENTIALS if os.environ.get(name)) or "none"
        raise CredentialsError(
            f"Handler {site.handler_id!r}: MLflow at {redact_urls(uri)!r} does not accept the "
            f"credentials (status {status}). Set in the environment: {variables}. "
            "Allowed: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or a user and a password in tracking_uri."
        )


CREDENTIALS: Final = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
)
"""Where MLflow looks for them."""
