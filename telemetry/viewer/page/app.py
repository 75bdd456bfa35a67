"""The page as an ASGI application."""

from __future__ import annotations

import importlib.resources
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from telemetry.extras import import_extra
from telemetry.viewer.page.access import Access
from telemetry.viewer.page.addresses import is_loopback
from telemetry.viewer.page.answers import Answers
from telemetry.viewer.page.live import Live
from telemetry.viewer.page.questions import QuestionError

if TYPE_CHECKING:
    from starlette.datastructures import QueryParams

FOREVER: Final = "public, max-age=31536000, immutable"
FRESH: Final = "no-cache"
"""Kept by the browser, which asks whether it is still the same."""
CHARTS: Final = "{{charts}}"
"""What stands in the page for the address of the library that draws the charts."""
NEVER: Final = "no-store"


def create_app(answers: Answers, live: Live, *, host: str, token: str | None) -> Starlette:
    """The application.

    Args:
        answers: Answers what the page asks.
        live: Says when something is new.
        host: The address that it is served on.
        token: What has to be known to see anything of the runs; None for nothing.

    Raises:
        MissingExtraError: The library that draws the charts is not installed.
    """
    plotly = import_extra("plotly", extra="viewer", feature="telemetry view")
    charts = f"plotly-{plotly.__version__}.min.js"
    library = importlib.resources.files("plotly") / "package_data" / "plotly.min.js"
    static = importlib.resources.files("telemetry.viewer.page") / "static"
    page = (static / "index.html").read_text("utf-8").replace(CHARTS, charts)

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers={"cache-control": FRESH})

    async def drawn_by(request: Request) -> Response:
        return FileResponse(
            str(library), media_type="text/javascript", headers={"cache-control": FOREVER}
        )

    async def events(request: Request) -> Response:
        return StreamingResponse(
            _events(live), media_type="text/event-stream", headers={"cache-control": NEVER}
        )

    asked = (
        answers.state,
        answers.curves,
        answers.clipping,
        answers.losses,
        answers.spans,
        answers.problems,
    )
    routes: list[BaseRoute] = [
        Route("/", index),
        Route(f"/{charts}", drawn_by),
        *(Route(f"/api/{answer.__name__}", _endpoint(answer)) for answer in asked),
        Route("/api/events", events),
        Mount("/static", _Fresh(directory=str(static))),
    ]
    middleware = [Middleware(Access, host=host, token=token)]
    if not is_loopback(host):  # here it would take longer than it saves
        middleware.append(Middleware(GZipMiddleware, compresslevel=5))
    return Starlette(routes=routes, middleware=middleware)


class _Fresh(StaticFiles):
    """Files of the page, which another release changes."""

    def file_response(self, *args: Any, **keywords: Any) -> Response:
        response = super().file_response(*args, **keywords)
        response.headers["cache-control"] = FRESH
        return response


def _endpoint(answer: Callable[[QueryParams], Any]) -> Callable[[Request], Response]:
    """An answer as JSON; made in a thread, as Starlette does with what is no coroutine."""

    def endpoint(request: Request) -> Response:
        try:
            told = answer(request.query_params)
        except QuestionError as error:
            return PlainTextResponse(str(error), 400)
        text = orjson.dumps(told, default=_contiguous, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(text, media_type="application/json", headers={"cache-control": NEVER})

    return endpoint


def _contiguous(value: Any) -> Any:
    """A strided array, which orjson does not take, as a list."""
    return value.tolist()


async def _events(live: Live) -> AsyncIterator[str]:
    """Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    async for version in live.changes():
        yield ": nothing new\n\n" if version is None else f"data: {version}\n\n"
