"""Whatever goes wrong, no sink shows a secret: in a log, an event, an error, a ``repr``, a file."""

import contextlib
import http.server
import logging
import os
import re
import threading
import traceback
from urllib.parse import urlsplit

import pytest

import handlers
from telemetry import ALL
from telemetry.values import jsonable

KEY = "f00dfeedbadc0ffee0ddf00d1234567890abcdef"  # 40 digits, as W&B wants them
BEARER = "bearer0token0that0is0long"
PASSWORD = "pass/word+that is%long"  # noqa: S105 -- the secret of a test
QUOTED = "pass%2Fword%2Bthat%20is%25long"
MARKS = (KEY, BEARER, PASSWORD, QUOTED, "pass%2Fword%2Bthat+is%25long", "pass/word%2Bthat%20is")
TROUBLES = ("refused", "401", "500", "hangs", "breaks")
TOLD = re.compile("cannot reach|DeliveryError|CredentialsError")

OPTIONS = {
    "slack": lambda url, host: {"url": f"{url}/services/{KEY}", "style": "slack"},
    "json": lambda url, host: {
        "url": f"http://user:{QUOTED}@{host}/hooks/{KEY}?token={BEARER}",
        "headers": {"Authorization": f"Bearer {BEARER}", "X-Key": KEY},
    },
    "apprise": lambda url, host: {"url": f"json://user:{QUOTED}@{host}/{KEY}?token={BEARER}"},
    "datadog": lambda url, host: {
        "transport": "api",
        "api_key": KEY,
        "app_key": BEARER,
        "api_host": url,
    },
    "mlflow": lambda url, host: {"tracking_uri": f"http://{KEY}:{QUOTED}@{host}"},
    "prometheus": lambda url, host: {
        "pushgateway": f"http://{KEY}:{QUOTED}@{host}",
        "push_interval": 0.1,
    },
    "opentelemetry": lambda url, host: {
        "endpoint": f"http://{KEY}:{QUOTED}@{host}",
        "headers": {"authorization": f"Bearer {BEARER}"},
        "export_interval": 0.1,
        "timeout": 0.5,
    },
    "redis": lambda url, host: {"url": f"redis://{KEY}:{QUOTED}@{host}/0", "timeout": 0.5},
}
WEBHOOKS = ("slack", "json", "apprise")
TEMPLATES = {("training", "step"): "step {step}"}


class Everything(logging.Handler):
    """Keeps all that is logged, as the most talkative of formatters would write it."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines = []

    def emit(self, record):
        shown = self.format(record)
        self.lines.append(f"{record.name} {shown} {record.__dict__}")


@pytest.fixture
def witness(bus, tmp_path, monkeypatch, capfd):
    """All that anybody can see of a test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    everything = Everything()
    levels = {
        name: logging.getLogger(name).level for name in ("", *logging.root.manager.loggerDict)
    }
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(everything)
    seen = []
    bus.attach(
        "witness",
        ALL,
        lambda event, measurements, metadata, config: seen.append(
            [repr(event), repr(jsonable(dict(metadata))), repr(metadata), repr(measurements)]
        ),
        on_failure="keep",
    )

    def all_of_it():
        output = capfd.readouterr()
        files = [
            path.read_bytes().decode("utf-8", "replace")
            for path in tmp_path.rglob("*")
            if path.is_file()
        ]
        said = [str(item) for items in seen for item in items]
        return "\n".join([*everything.lines, *said, output.out, output.err, *files])

    all_of_it.logged = everything.lines
    yield all_of_it
    root.removeHandler(everything)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def troubled(receiver, free_port):
    """The URL of a server with a trouble."""

    def troubled(trouble):
        receiver.hangs = trouble == "hangs"
        receiver.breaks = trouble == "breaks"
        if trouble.isdigit():
            receiver.always = (int(trouble), {})
        return f"http://127.0.0.1:{free_port}" if trouble == "refused" else receiver.url

    return troubled


def shown_of(error):
    """An exception with all that hangs on it."""
    texts = []
    while error is not None:
        texts += [repr(error), str(error), *traceback.format_exception(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return texts


def run_through(bus, name, options, until=lambda: True):
    """Attach, look at it, emit, flush, wait for the trouble, detach; what was seen of that."""
    seen = []
    try:
        attachment = handlers.attach(name, registry=bus, flush_timeout=0.1, **options)
    except Exception as error:
        return shown_of(error)
    seen += [repr(attachment), repr(attachment.handler), repr(bus.list_handlers())]
    for step in range(3):
        bus.execute(("training", "step"), {"loss": 0.5}, {"step": step})
        bus.execute(("training", "checkpoint"), {"size_bytes": 1}, {"checkpoint_name": "a"})
        with contextlib.suppress(ValueError), bus.span(("stage", "run"), {"stage": "fit"}):
            raise ValueError
    try:
        attachment.flush(0.2)
    except Exception as error:
        seen += shown_of(error)
    until()
    bus.detach(name, missing_ok=True)
    return seen


def assert_nothing_leaked(witness, seen):
    text = "\n".join([witness(), *seen])
    for mark in MARKS:
        if mark in text:
            at = text.index(mark)
            pytest.fail(f"shown: {text[max(0, at - 400) : at + 200]}")
    return text


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("sink", OPTIONS)
def test_no_secret_is_shown(bus, witness, troubled, receiver, wait_until, sink, trouble):
    url = troubled(trouble)
    options = OPTIONS[sink](url, urlsplit(url).netloc)
    if sink in WEBHOOKS:
        options |= {"timeout": 0.3}
        options |= {} if sink == "json" else {"templates": TEMPLATES}
    name = "webhook" if sink in WEBHOOKS else sink

    def told():
        # What hangs may hang for longer than a test, and some see an answer in half of one.
        asked = receiver.requests and trouble in ("hangs", "breaks")
        return asked or TOLD.search("".join(witness.logged))

    seen = run_through(bus, name, options, until=lambda: wait_until(told))
    assert told() or TOLD.search("".join(seen))
    assert_nothing_leaked(witness, seen)


@pytest.mark.parametrize("sink", [sink for sink in OPTIONS if sink != "slack"])
def test_no_secret_is_shown_of_a_url_with_a_mistake(bus, witness, sink):
    name = "webhook" if sink in WEBHOOKS else sink
    for host in ("127.0.0.1:99999", "127.0.0.1:port", "[::1", ""):
        seen = run_through(bus, name, OPTIONS[sink](f"http://{KEY}:{QUOTED}@{host}", host))
        assert seen, f"{name} took {host!r}"
        assert_nothing_leaked(witness, seen)


@pytest.mark.parametrize("trouble", ["refused", "401", "password"])
def test_no_secret_is_shown_by_wandb(
    bus, witness, troubled, tmp_path, monkeypatch, wait_until, trouble
):
    for variable in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(variable)
    for variable in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    url = troubled(trouble)
    if trouble == "password":
        url = f"http://user:{QUOTED}@{urlsplit(url).netloc}"
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.teardown()
    options = {
        "project": "demo",
        "mode": "online",
        "dir": tmp_path,
        "api_key": KEY,
        "init_timeout": 1.0,
        "finish_timeout": 1.0,
    }
    try:
        seen = run_through(bus, "wandb", options)
        wait_until(lambda: wandb.run is None)
    finally:
        wandb.teardown()
    text = assert_nothing_leaked(witness, seen)
    assert TOLD.search(text) or "has a user or a password in it" in text


@pytest.fixture
def repeating():
    """The URL of a server that takes nobody, and says again what it was told, behind much else."""

    class Repeating(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            told = f"{self.path} {self.headers.get('Authorization')}"
            said = f"{'x' * (280 - len(self.path))} {told} {told.rsplit(maxsplit=1)[-1]}".encode()
            self.send_response(401)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *arguments):
            """Nothing on the test's standard error."""

    with http.server.HTTPServer(("127.0.0.1", 0), Repeating) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


HEADERS = {  # each with a token of its own: what was hidden once in a log stays hidden there
    "authorization=Bearer%20{token}": "quoted0token0that0is0long",
    "authorization=Bearer {token},x-key=7": "plain0token0that0is0long",
    "authorization: Bearer {token}": "malformed0token0that0is0long",
    "{token}": "nameless0token0that0is0long",
}


@pytest.mark.parametrize("headers", HEADERS)
def test_no_secret_of_opentelemetrys_variables_is_shown(
    bus, witness, repeating, monkeypatch, wait_until, headers
):
    token = HEADERS[headers]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers.format(token=token))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{repeating}/?token={KEY}")

    def told():
        return TOLD.search("".join(witness.logged))

    options = {"export_interval": 0.1, "timeout": 5.0}
    seen = run_through(bus, "opentelemetry", options, until=lambda: wait_until(told))
    text = assert_nothing_leaked(witness, seen)
    for half in (token[:8], KEY[:8]):
        assert half not in text
    assert "urllib3.connectionpool" in text
    assert ("opentelemetry.util.re" in text) == ("=" not in headers)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_no_secret_of_the_query_of_an_otlp_endpoint_is_shown(
    bus, witness, troubled, receiver, wait_until, trouble
):
    options = {"endpoint": f"{troubled(trouble)}?token={KEY}", "export_interval": 0.1}

    def told():
        return receiver.requests or TOLD.search("".join(witness.logged))

    seen = run_through(
        bus, "opentelemetry", {**options, "timeout": 0.5}, until=lambda: wait_until(told)
    )
    assert_nothing_leaked(witness, seen)
