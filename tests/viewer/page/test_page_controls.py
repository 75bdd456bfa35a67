"""Each control of the page, in a real browser."""

import numpy as np
import pytest

NOISY = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0]


def last_trace(page, condition):
    """The last line of the first chart, once it is as wanted."""
    return page.until(
        f"const d = document.querySelector('.chart')?.data; const t = d?.at(-1);"
        f"return t && ({condition}) && {{x: [...t.x], y: [...t.y], count: d.length}}"
    )


def test_the_slider_smooths_and_leaves_the_recorded_curve_behind(page, serve, log):
    log().steps(NOISY)
    page.open(serve(log().path, smooth=2).url)
    smooth = last_trace(page, "d.length === 2")
    assert smooth["y"] == [5, 3, 2.5, 3, 2.5, 4.5]  # the mean of each and the one before it
    assert page.js("return [...document.querySelector('.chart').data[0].y]") == NOISY
    page.choose("#smooth", "0")
    assert last_trace(page, "d.length === 1")["y"] == NOISY
    page.choose("#smooth", "2")
    last_trace(page, "d.length === 2")
    assert page.text("#smooth-shown") == "3 points"
    assert "smooth=3" in page.js("return location.hash")


def test_the_mode_of_smoothing_is_that_of_the_plots(page, serve, log):
    log().steps(NOISY)
    page.open(serve(log().path, smooth=3).url)
    last_trace(page, "d.length === 2")
    page.choose("#mode", "median")
    medians = [np.median(NOISY[max(i - 2, 0) : i + 1]) for i in range(len(NOISY))]
    assert last_trace(page, "t.y[1] === 3 && t.y[2] === 4")["y"] == medians


def test_the_axis_is_step_time_or_epoch(page, serve, log):
    run = log().steps(NOISY[:3], epoch=1).steps(NOISY[3:], first=4, epoch=2)
    page.open(serve(run.path).url)
    assert last_trace(page, "t.x[0] === 1")["x"] == [1, 2, 3, 4, 5, 6]
    page.choose("#axis", "time")
    assert last_trace(page, "t.x[0] === 0")["x"] == [0, 1, 2, 3, 4, 5]
    assert page.js("return document.querySelector('.chart').layout.xaxis.title.text") == (
        "time (seconds)"
    )
    page.choose("#axis", "epoch")
    assert last_trace(page, "t.x[5] === 2")["x"] == [1, 1, 1, 2, 2, 2]


def test_an_axis_that_no_record_has_cannot_be_chosen(page, serve, log):
    log().steps(NOISY)
    page.open(serve(log().path).url).traces("loss")
    assert page.js(
        "return [...document.querySelectorAll('#axis option')].map((o) => o.disabled)"
    ) == [
        False,
        False,
        True,
    ]


def test_the_log_scale_is_switched(page, serve, log):
    log().steps(NOISY)
    page.open(serve(log().path).url).traces("loss")
    page.click("#log")
    page.until("return document.querySelector('.chart').layout.yaxis.type === 'log'")
    page.click("#log")
    page.until("return document.querySelector('.chart').layout.yaxis.type === 'linear'")


def test_a_zoom_is_shared_by_all_charts_and_brings_back_what_was_left_out(page, serve, log):
    run = log().steps(np.sin(np.arange(20_000)).tolist()).steps([1.0] * 20_000, name="lr")
    page.open(serve(run.path).url)
    few = page.traces("loss")[0]["x"]
    assert len(few) < 3000
    page.js("Plotly.relayout(document.querySelector('.chart'), {'xaxis.range': [100, 200]})")
    found = last_trace(page, "t.x[0] > 50 && t.x.length > 100")
    assert found["x"] == list(range(99, 202))  # and a point on either side
    page.until(
        "return [...document.querySelectorAll('.chart')]"
        ".every((c) => c.layout.xaxis.range[0] === 100 && c.layout.xaxis.range[1] === 200)"
    )
    page.click("#reset")
    last_trace(page, "t.x[0] === 1")
    assert page.js("return location.hash") == ""


def test_a_range_is_typed(page, serve, log):
    log().steps([float(value) for value in range(100)])
    page.open(serve(log().path).url).traces("loss")
    page.choose("#from", "40")
    page.choose("#to", "50")
    assert last_trace(page, "t.x.length < 20")["x"] == list(range(39, 52))
    page.choose("#from", "abc")
    assert page.js("return document.querySelector('#from').validationMessage")


def test_runs_and_metrics_are_picked(page, serve, log, tmp_path):
    log("a.jsonl").steps([1.0, 2.0]).steps([0.1], name="lr")
    log("b.jsonl").steps([3.0, 4.0])
    page.open(serve(tmp_path).url)
    page.until("return document.querySelector('.chart')?.data?.length === 2")
    page.click("#runs input[data-name='a']")
    page.until("return document.querySelector('.chart').data.length === 1")
    assert page.traces("loss")[0]["y"] == [3, 4]
    page.click("#metrics-none")
    page.until("return !document.querySelector('#empty').hidden")
    assert page.text("#empty") == "Choose a metric in the list."
    page.click("#metrics input[data-name='training.loss']")
    page.until("return document.querySelectorAll('.card').length === 1")
    page.click("#metrics-usual")
    page.until("return document.querySelectorAll('.card').length === 2")


def test_the_list_of_metrics_is_searched(page, serve, log):
    run = log().steps([1.0]).steps([1.0], name="entropy").steps([1.0], name="reward")
    page.open(serve(run.path).url).traces("loss")
    page.choose("#metric-search", "training/ent")
    seen = (
        "[...document.querySelectorAll('#metrics label:not([hidden])')].map((l) => l.textContent)"
    )
    page.until(f"return {seen}.length === 1")
    assert page.js(f"return {seen}") == ["training.entropy"]
    page.choose("#metric-search", "zzz")
    page.until(f"return {seen}.length === 0")
    assert page.text("#news") == "No name has zzz in it."


def test_the_address_brings_back_what_was_chosen(page, serve, log):
    run = log().steps(NOISY).steps([0.1], name="lr")
    served = serve(run.path)
    page.open(served.url).traces("loss")
    page.choose("#axis", "time")
    page.click("#log")
    page.click("#metrics input[data-name='training.lr']")
    address = page.until("return location.hash.includes('metrics=') && location.href")
    page.open(address)
    page.until("return document.querySelector('.chart')?.layout?.yaxis.type === 'log'")
    assert page.js("return document.querySelector('#axis').value") == "time"
    assert page.js("return document.querySelectorAll('.card').length") == 1


def test_hovering_shows_the_values_in_all_charts(page, serve, log):
    from selenium.webdriver.common.action_chains import ActionChains

    run = log().steps([1.0, 2.0, 3.0]).steps([0.1, 0.2, 0.3], name="lr")
    page.open(serve(run.path).url)
    page.traces("loss")
    page.traces("lr")
    place = page.find(".card[data-panel='loss'] .nsewdrag")
    ActionChains(page.driver).move_to_element(place).perform()
    layers = "[...document.querySelectorAll('.card .hoverlayer')]"
    shown = f"{layers}.map((layer) => layer.textContent)"
    page.until(f"return {shown}.every((text) => text !== '')")
    assert page.js(f"return {shown}") == ["22", "20.2"]  # the step, and the value there


@pytest.mark.parametrize(
    ("scheme", "ground"), [("light", "rgb(246, 247, 249)"), ("dark", "rgb(18, 23, 29)")]
)
def test_the_colours_are_the_systems_until_they_are_switched(page, serve, log, scheme, ground):
    log().steps(NOISY)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    page.open(serve(log().path).url).traces("loss")
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.js(f"return {colour}") == ground
    ink = page.js("return document.querySelector('.chart').layout.font.color")
    page.click("#theme")
    page.until(f"return {colour} !== arguments[0]", ground)
    assert page.js("return document.querySelector('.chart').layout.font.color") != ink


def test_the_page_fits_a_phone(page, serve, log):
    log("a_run_with_a_rather_long_name_" + "x" * 60 + ".jsonl").steps(NOISY)
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        (path,) = log().path.parent.iterdir()
        page.open(serve(path).url).traces("loss")
        assert page.js("return document.documentElement.scrollWidth <= 390")
        assert page.js("return document.querySelector('.card').getBoundingClientRect().width > 300")
        assert not page.js("return document.querySelector('#side').open")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_reaches_every_control(page, serve, log):
    from selenium.webdriver.common.keys import Keys

    log().steps(NOISY)
    page.open(serve(log().path).url).traces("loss")
    reached = []
    for _ in range(40):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        focus = page.js(
            "const e = document.activeElement; const s = getComputedStyle(e);"
            "return [e.id || e.dataset.name || e.className || e.tagName,"
            " e === document.body || s.outlineStyle !== 'none']"
        )
        reached.append(focus)
    ids = [name for name, _ in reached]
    assert ids[0] == "skip"
    for wanted in (
        "theme",
        "run",
        "metric-search",
        "training.loss",
        "tab-metrics",
        "axis",
        "mode",
        "smooth",
        "log",
        "from",
        "to",
        "reset",
    ):
        assert wanted in ids
    assert all(visible for _, visible in reached)
    unnamed = page.js(
        "return [...document.querySelectorAll('button, input, select')].filter((e) =>"
        " !e.hidden && !e.labels?.length && !e.ariaLabel && !e.textContent.trim()).map((e) => e.id)"
    )
    assert unnamed == []


def test_arrows_change_the_tab(page, serve, log):
    from selenium.webdriver.common.keys import Keys

    log().steps(NOISY)
    page.open(serve(log().path).url).traces("loss")
    page.find("#tab-metrics").send_keys(Keys.ARROW_LEFT)
    page.until("return document.activeElement.id === 'tab-problems'")
    page.until("return document.querySelector('#empty').textContent.startsWith('No alert')")
    assert page.js("return document.querySelector('#tab-problems').ariaSelected") == "true"
