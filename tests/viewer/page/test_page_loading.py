"""The page while it is not all there yet: what draws the charts, and what is in the log."""

import threading

from telemetry.viewer.page import live, watched

from .conftest import WAIT


def test_charts_are_drawn_when_what_draws_them_could_be_loaded_after_all(page, serve, log):
    run = log().steps([3.0, 1.0, 2.0])
    served = serve(run.path)
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*plotly*"]})
    try:
        page.open(served.url)
        page.until("return document.querySelector('#lost').textContent.startsWith('What draws')")
        assert page.js("return !document.querySelector('#lost').hidden")
        assert page.js("return !document.querySelector('.chart svg')")
    finally:
        page.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        page.driver.execute_cdp_cmd("Network.disable", {})
    run.steps([1.0], first=4)
    page.until("return document.querySelector('.card .chart').data?.[0].y.join() === '3,1,2,1'")
    page.until("return document.querySelector('#lost').hidden")
    page.errors()  # the browser's own word on what was blocked


def test_what_was_read_is_shown_while_the_rest_is_read(page, serve, log, monkeypatch):
    monkeypatch.setattr(watched, "SOON", 40_000)
    monkeypatch.setattr(watched, "MOST", 40_000)
    monkeypatch.setattr(live, "PAUSE", 0.0)
    more = log().steps(range(4000))
    served = serve(more.path)
    page.open(served.url).traces("loss")
    page.until("return [...document.querySelectorAll('.card .chart')][0].data[0].x.at(-1) === 4000")
    page.until("return document.querySelector('#status').textContent === 'run: 4,000 records'")
    assert not page.errors()


def test_how_much_is_still_to_be_read_is_said(page, serve, log, monkeypatch):
    monkeypatch.setattr(watched, "SOON", 2000)
    run = log().steps(range(1000))
    look, may_go_on = watched.Watched.look, threading.Event()

    def look_when_allowed(self):
        if self.snapshot is not None:
            may_go_on.wait(WAIT)
        return look(self)

    monkeypatch.setattr(watched.Watched, "look", look_when_allowed)
    page.open(serve(run.path).url)
    try:
        (trace,) = page.traces("loss")
        shown = len(trace["x"])
        assert trace["x"] == list(range(1, shown + 1))
        left = (run.path.stat().st_size - 2000) / 1e3
        assert page.text("#status") == f"run: {shown} records, reading {left:.0f} KB more …"
        assert page.js("return document.querySelector('#status').className") == "busy"
    finally:
        may_go_on.set()
    page.until("return document.querySelector('#status').textContent === 'run: 1,000 records'")
    assert page.js("return document.querySelector('#status').className") == ""
