"""A page that is served by the command, a browser that looks at it, and runs to look at."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest

WAIT = 60
START = 1_795_257_000.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--force-color-profile=srgb",
    "--window-size=1280,900",
)


def stamp(second):
    moment = datetime.fromtimestamp(START + second, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def line(event, second=0.0, measured=None, **told):
    record = {
        "timestamp": stamp(second),
        "event": event,
        "measurements": measured or {},
        "metadata": told,
    }
    return json.dumps(record) + "\n"


def span_line(event, span, parent, second, *, duration=None, **told):
    """A span's event; ids are small numbers, written as the handler writes them."""
    context = {
        "span_id": f"{span:016x}",
        "parent_id": None if parent is None else f"{parent:016x}",
        "trace_id": f"{1:016x}",
    }
    measured = {"monotonic_time": 1}
    if duration is not None:
        measured["duration"] = round(duration * 1e9)
    return line(event, second, measured, telemetry_span_context=context, **told)


class Log:
    """A log that is written to."""

    def __init__(self, path):
        self.path = path

    def write(self, *lines):
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
        return self

    def steps(self, losses, first=1, *, name="loss", **told):
        return self.write(
            *(
                line("training.step", float(step), {name: value}, step=step, **told)
                for step, value in enumerate(losses, first)
            )
        )


@pytest.fixture
def log(tmp_path):
    """Make a log by name."""
    return lambda name="run.jsonl": Log(tmp_path / name)


class Served:
    """The address of a page, and the process that serves it, if that is another."""

    def __init__(self, url, process=None):
        self.url = url
        self.process = process

    def get(self, path, **headers):
        """The status, the headers and the text of an answer."""
        base = self.url.partition("#")[0].removesuffix("/")
        request = urllib.request.Request(f"{base}/{path}", headers=headers)  # noqa: S310 -- of this test's own server
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:  # noqa: S310 -- as above
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()


@pytest.fixture
def serve():
    """Serve the page of some logs in a thread, which is quicker than a process."""
    from telemetry.viewer.page.addresses import address_of, listen
    from telemetry.viewer.page.live import Live
    from telemetry.viewer.page.server import PageServer
    from telemetry.viewer.page.watched import Watched

    running = []

    def start(*paths, host="127.0.0.1", token=None, **settings):
        listening = listen("127.0.0.1", 0)
        started = threading.Event()
        live = Live(Watched(paths))
        live.start()
        page = PageServer(live, host=host, token=token, settings=settings, started=started.set)
        thread = threading.Thread(target=page.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((page, thread, listening, live))
        assert started.wait(WAIT)
        return Served(address_of(listening, "127.0.0.1", token))

    yield start
    for page, thread, listening, live in running:
        live.close()
        page.should_exit = True
        thread.join(WAIT)
        listening.close()
        assert not thread.is_alive()


@pytest.fixture
def run_command():
    """Run ``telemetry view`` with some arguments, on a free port."""
    running = []

    def start(*arguments):
        command = [sys.executable, "-m", "telemetry", "view", "--no-browser", "--port", "0"]
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        running.append(process)
        for text in process.stdout:
            if text.strip().startswith("http"):
                return Served(text.strip(), process)
        raise AssertionError(process.stderr.read())

    yield start
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT)


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A headless Chromium with a profile of its own."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("the programs chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(chromedriver)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(WAIT)
    yield driver
    driver.quit()


class Page:
    """The page in the browser."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, url):
        self.driver.get("about:blank")  # or only the part behind # would be another
        self.driver.get(url)
        return self

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, *arguments):
        """Wait until a script gives something, and return that."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, WAIT, poll_frequency=0.05).until(
            lambda driver: driver.execute_script(script, *arguments), script
        )

    def traces(self, panel):
        """The lines of a chart of the tab Metrics, once it is drawn."""
        chart = "document.querySelector('.card[data-panel=\"' + arguments[0] + '\"] .chart')"
        return self.until(
            f"const chart = {chart}; return chart?.data && chart.querySelector('.trace') && "
            "chart.data.map((t) => ({x: [...t.x], y: [...t.y], name: t.name, color: t.line?.color,"
            " text: t.text}))",
            panel,
        )

    def find(self, selector):
        return self.until("return document.querySelector(arguments[0])", selector)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0])?.textContent", selector)

    def choose(self, selector, value):
        """Change a control as its user does."""
        self.js(
            "const c = document.querySelector(arguments[0]); c.value = arguments[1];"
            "c.dispatchEvent(new Event('input', {bubbles: true}));"
            "c.dispatchEvent(new Event('change', {bubbles: true}));",
            selector,
            value,
        )

    def click(self, selector):
        self.find(selector).click()

    def errors(self):
        """What the browser has complained of since this was asked last."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]


@pytest.fixture
def page(driver):
    """The browser, as new."""
    driver.get("about:blank")
    driver.get_log("browser")
    return Page(driver)
