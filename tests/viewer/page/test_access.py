"""Who may see a page. The application is called as a server calls it, on any address."""

import asyncio
import re

import pytest

from telemetry.viewer.page.addresses import address_of, is_loopback, listen
from telemetry.viewer.page.answers import Answers
from telemetry.viewer.page.app import create_app
from telemetry.viewer.page.live import Live
from telemetry.viewer.page.server import PageServer
from telemetry.viewer.page.watched import Watched

TOKEN = "a-token-that-nobody-guesses"  # noqa: S105 -- of these tests


@pytest.fixture
def call(log):
    """Ask an application that is served on some address; status, headers and text."""
    log().steps([1.0])
    watched = Watched([log().path])
    watched.look()
    live = Live(watched)

    def asked(path, *, host="127.0.0.1", token=None, method="GET", app=None, query="", **headers):
        app = app or create_app(Answers(live, {}), live, host=host, token=token)
        headers = {"host": f"{host}:7007", **headers}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            "server": ("127.0.0.1", 7007),
        }
        sent = []

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent[1:])

    asked.app = lambda host, token: create_app(Answers(live, {}), live, host=host, token=token)
    return asked


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.10", "[::1]"])
def test_on_this_machine_a_page_needs_no_token(call, host):
    assert call("/api/state")[0] == 200
    status, _, _ = call("/api/state", app=call.app("127.0.0.1", None), host=f"{host}:7007")
    assert status == 200


@pytest.mark.parametrize("path", ["/api/state", "/api/curves", "/api/spans", "/api/events"])
def test_elsewhere_nothing_of_the_runs_is_told_without_the_token(call, path):
    status, _, text = call(path, host="192.0.2.7", token=TOKEN)
    assert status == 401
    assert text == (b"This page needs its token: open the address that telemetry view has printed.")


def test_who_sends_the_token_gets_a_cookie_that_opens_the_page(call):
    app = call.app("192.0.2.7", TOKEN)
    ask = {"app": app, "host": "192.0.2.7"}
    status, headers, _ = call("/api/login", method="POST", authorization=f"Bearer {TOKEN}", **ask)
    assert status == 204
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert call("/api/state", cookie=cookie.partition(";")[0], **ask)[0] == 200


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", f"Bearer {TOKEN}x", "Bearer é"])
def test_another_token_opens_nothing(call, given):
    status, headers, _ = call(
        "/api/login", host="192.0.2.7", token=TOKEN, method="POST", authorization=given
    )
    assert status == 401
    assert "set-cookie" not in headers


def test_a_token_in_an_address_is_not_taken(call):
    assert call("/api/login", host="192.0.2.7", token=TOKEN)[0] == 405


@pytest.mark.parametrize(
    "cookie", ["trainbus-7007=", "trainbus-7007=wrong", f"trainbus-7007={TOKEN}"]
)
def test_another_cookie_opens_nothing(call, cookie):
    assert call("/api/state", host="192.0.2.7", token=TOKEN, cookie=cookie)[0] == 401


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.1", "evil.example"),
        ("127.0.0.1", "evil.example:7007"),
        ("127.0.0.1", "127.0.0.1.evil.example"),
        ("127.0.0.1", "192.0.2.7"),
        ("127.0.0.1", ""),
        ("192.0.2.7", "evil.example"),
    ],
)
def test_a_name_that_is_not_this_machines_is_refused(call, host, name):
    app = call.app(host, None if host == "127.0.0.1" else TOKEN)
    for path in ("/", "/api/state", "/api/login", "/static/app.js"):
        assert call(path, app=app, host=name)[0] == 421


def test_an_address_that_others_reach_is_not_served_without_a_token(log):
    with pytest.raises(ValueError, match="which others can reach, needs a token"):
        PageServer(
            Live(Watched([log().path])),
            host="0.0.0.0",  # noqa: S104 -- refused
            token=None,
            settings={},
            started=bool,
        )


def test_a_websocket_is_refused_whoever_asks_for_it(call):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": "/api/state", "headers": [(b"host", b"evil.example")]}
    asyncio.run(call.app("127.0.0.1", None)(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_name_of_this_machine_is_looked_up_once(call, monkeypatch):
    asked = []
    monkeypatch.setattr("socket.getfqdn", lambda: asked.append(1) or "Trainer.example")
    app = call.app("192.0.2.7", TOKEN)
    for _ in range(3):
        assert call("/", app=app, host="trainer.EXAMPLE:7007")[0] == 200
    assert asked == [1]


def test_no_path_leads_out_of_the_page(serve, log):
    log().steps([1.0])
    served = serve(log().path)
    for path in (
        "../../../../etc/passwd",
        "static/../app.py",
        "static/%2e%2e/app.py",
        "static//etc/passwd",
        "static/..%2f..%2f..%2f..%2fetc/passwd",
        "static/%2fetc/passwd",
        "static/",
        "api/../../run.jsonl",
        "run.jsonl",
    ):
        assert served.get(path)[0] == 404, path
    assert served.get("static/app.js")[0] == 200


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("metric=training.loss&run=9", (200, b"[]")),
        ("metric=training.loss&run=-1", (200, b"[]")),
        ("metric=/etc/passwd", (200, b"[]")),
        ("metric=training.loss&run=../x", (400, b"run must be the number of a run, got ['../x'].")),
        ("axis=loss", (400, b"axis must be one of step, time, epoch, got 'loss'.")),
        ("points=many", (400, b"points must be a whole number, got 'many'.")),
        ("from=here", (400, b"from must be a number, got 'here'.")),
        ("mode=best", (400, b"mode must be one of mean, centered, ema, median, got 'best'.")),
    ],
)
def test_a_question_names_runs_by_number_and_is_checked(call, query, answer):
    status, _, text = call("/api/curves", query=query)
    assert (status, text) == answer


def test_every_answer_forbids_what_is_not_the_pages(serve, log):
    log().steps([1.0])
    served = serve(log().path)
    for path in ("", "api/state", "static/app.js", "nowhere"):
        _, headers, _ = served.get(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_the_library_of_the_charts_is_kept_for_ever_and_the_page_is_not(serve, log):
    log().steps([1.0])
    served = serve(log().path)
    _, headers, text = served.get("")
    assert headers["cache-control"] == "no-cache"
    (library,) = re.findall(r'href="(plotly-[^"]+)"', text)
    _, headers, _ = served.get(library)
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert headers["content-type"].startswith("text/javascript")


def test_off_this_machine_answers_are_compressed(call):
    _, headers, _ = call("/", host="192.0.2.7", token=TOKEN, **{"accept-encoding": "gzip"})
    assert headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost", True),
    ]
    + [(host, False) for host in ("0.0.0.0", "::", "192.0.2.7", "localhost.evil.example", "")],  # noqa: S104 -- asked about
)
def test_an_address_is_this_machines_own_or_not(host, own):
    assert is_loopback(host) is own


def test_the_token_stands_where_a_browser_does_not_send_it():
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert (
            address_of(listening, "127.0.0.1", TOKEN) == f"http://127.0.0.1:{port}/#token={TOKEN}"
        )


def test_the_browser_exchanges_the_token_and_forgets_it(page, serve, log):
    log().steps([2.0, 1.0])
    served = serve(log().path, token=TOKEN)
    assert served.get("api/state")[0] == 401
    page.open(served.url)
    assert page.traces("loss")[0]["y"] == [2, 1]
    assert TOKEN not in page.js("return location.href + document.cookie")
    page.driver.delete_all_cookies()
    page.open(served.url.partition("#")[0])
    page.until("return !document.querySelector('#lost').hidden")
