"""How long the page of a large run takes: from the command to the charts, in headless Chromium.

The first charts show what was read by then, which is told beside them; the last all events.

Run as ``python -m benchmarks.viewer_page [EVENTS]``.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
LONGEST = 120.0

DRAWN = """
const cards = [...document.querySelectorAll('.card')]
    .filter((card) => card.getBoundingClientRect().top < innerHeight);
return cards.length > 0 && cards.every((card) => card.querySelector('.scatterlayer .js-line'));
"""
WHOLE = """
const chart = document.querySelector('.chart');
return document.querySelector('#status').textContent.endsWith('%s records')
    && chart.data[0].x.at(-1) === %d;
"""
ZOOM = """
const [done] = arguments, began = performance.now();
const chart = document.querySelector('.chart');
const end = () => done(performance.now() - began);
chart.once('plotly_afterplot', () => chart.once('plotly_afterplot', end));
Plotly.relayout(chart, {'xaxis.range': [%d, %d]});
"""


def write_run(path: Path, events: int) -> None:
    """Write a log of steps with clipping, a regularizer and timings."""
    random.seed(1)
    with path.open("wb") as file:
        for number in range(events):
            step = number // 4 + 1
            name, measured, told = _event(step, number % 4)
            place = {"run_id": "large", "attempt": 1, "epoch": 1 + step // 10_000, "step": step}
            stamp = (
                f"2026-11-21T10:{step // 60_000 % 60:02}:{step // 1000 % 60:02}.{step % 1000:03}Z"
            )
            record = {
                "timestamp": stamp,
                "event": name,
                "measurements": measured,
                "metadata": place | told,
            }
            file.write(orjson.dumps(record) + b"\n")


def _event(step: int, kind: int) -> tuple[str, dict[str, float], dict[str, str]]:
    if kind == 0:
        loss = 2.5 * math.exp(-step / 1e5) + random.random() * 0.1
        return "training.step", {"loss": loss, "lr": 2e-4}, {}
    if kind == 1:
        norm = random.random()
        measured = {"grad_norm": norm, "threshold": 0.9, "scale": min(1.0, 0.9 / norm)}
        return "smartclip.clip.stop", {"duration": 123_456, **measured}, {"algo": "autoclip"}
    if kind == 2:
        measured = {"duration": 2345, "value": random.random(), "contribution": 0.1}
        return "regularizer.compute.stop", measured, {"regularizer_name": "l2"}
    return "training.timing", {"step_duration": 5_000_000, "samples_per_second": 12_800.0}, {}


def measure(log: Path, events: int) -> dict[str, float]:
    """Seconds until the address is printed, and until the charts in sight are drawn.

    Args:
        log: The log.
        events: How many it has.
    """
    options = Options()
    options.binary_location = CHROMIUM
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            driver.get("about:blank")
            return _opened(driver, log, events)
        finally:
            driver.quit()


def _opened(driver: webdriver.Chrome, log: Path, events: int) -> dict[str, float]:
    began = time.perf_counter()
    command = [sys.executable, "-m", "telemetry", "view", str(log), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            lines = (line.decode().strip() for line in server.stdout or ())
            url = next(line for line in lines if line.startswith("http"))
            printed = time.perf_counter() - began
            driver.get(url)
            drawn = _until(driver, DRAWN, began)
            whole = _until(driver, WHOLE % (f"{events:,}", events // 4), began)
            zoomed = driver.execute_async_script(ZOOM % (1000, 2000)) / 1000
        finally:
            server.terminate()
    return {
        "address printed": printed,
        "charts drawn": drawn,
        "with all events": whole,
        "zoomed": zoomed,
    }


def _until(driver: webdriver.Chrome, script: str, began: float) -> float:
    while not driver.execute_script(script):
        if time.perf_counter() - began > LONGEST:
            raise TimeoutError(driver.page_source)
        time.sleep(0.05)
    return time.perf_counter() - began


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "large.jsonl")
        write_run(log, events)
        found = measure(log, events)
    print(f"{events:,} events")
    for what, seconds in found.items():
        print(f"{what:16} {seconds:6.2f} s")


if __name__ == "__main__":
    main()
