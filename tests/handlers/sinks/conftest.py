"""Receivers on loopback, and programs that stand where a sink's other end would be."""

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest


@pytest.fixture
def wait_until():
    """Wait until something is true; how long is no matter of the test."""

    def wait(what, timeout=60.0):
        end = time.monotonic() + timeout
        while not (found := what()):
            assert time.monotonic() < end, f"not within {timeout} s"
            time.sleep(0.02)
        return found

    return wait


@pytest.fixture
def free_port():
    """A port of loopback on which nobody listens but who asks for this very one."""
    with socket.socket() as held:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            held.setsockopt(socket.SOL_SOCKET, option, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        if sys.platform != "linux":  # where the test could not have it either
            held.close()
        yield port


@pytest.fixture
def answers():
    """Whether a server answers at a URL, and well: while it starts it may say 503."""

    def answers(url):
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 -- it is http
                return answer.status == 200
        except OSError:
            return False

    return answers


@pytest.fixture
def program(tmp_path, wait_until):
    """Start a program of the system, and stop it at the end by its own pid."""
    with contextlib.ExitStack() as running:

        def start(name, *arguments, ready, package=None):
            found = shutil.which(name)
            if found is None:
                pytest.skip(f"needs the program {name}: apt-get install {package or name}")
            log = running.enter_context((tmp_path / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [found, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=tmp_path,
            )
            running.callback(process.wait)
            running.callback(process.kill)
            wait_until(lambda: process.poll() is not None or ready())
            assert process.poll() is None, (tmp_path / f"{name}.log").read_text()
            return process

        yield start


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what is posted, and answers as it is told."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []
        self.times = []  # when each came
        self.answers = []  # (status, headers), used up one by one; then 200
        self.always = None  # (status, headers) for all
        self.released = threading.Event()
        self.hangs = False  # whether an answer waits for `released`
        self.breaks = False  # whether the connection is closed in the middle of the answer

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Clients that give up are what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer's body waits 40 ms for the client's delayed ACK

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.times.append(time.monotonic())
        self.server.requests.append((self.path, dict(self.headers), body))
        if self.server.hangs:
            self.server.released.wait(600)
        if self.server.breaks:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            self.close_connection = True
            return
        status, headers = self.server.always or (
            self.server.answers.pop(0) if self.server.answers else (200, {})
        )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_PUT = do_GET = do_DELETE = do_POST  # noqa: N815 -- names of http.server

    def log_message(self, *arguments):
        """Nothing on the test's standard error."""


@pytest.fixture
def receiver():
    """An HTTP server on loopback: ``.url``, ``.requests`` as (path, headers, body)."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def in_child():
    """Run a function in a forked child, and wait for its end."""

    def run(function):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    return run
