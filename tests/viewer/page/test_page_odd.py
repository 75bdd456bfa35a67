"""What a reader of the page may do that is not as expected, in a real browser."""

import pytest

from .conftest import line, span_line
from .test_page_controls import NOISY, last_trace

SHOWN = "!document.querySelector('#empty').hidden && document.querySelector('#empty').textContent"


@pytest.mark.parametrize("tab", ["metrics", "clipping", "losses", "spans"])
def test_no_run_is_no_chart_and_asks_for_nothing(page, serve, log, tmp_path, tab):
    for name in ("a", "b"):
        log(f"{name}.jsonl").write(
            line("custom_loss.stop", 1.0, {"loss_total": 3.0, "duration": 1}, step=1),
            line("smartclip.clip.stop", 1.0, {"grad_norm": 2.0, "scale": 0.5}, step=1),
            span_line("stage.run.start", 1, None, 0.0),
        )
    page.open(serve(tmp_path).url + f"#tab={tab}")
    page.until("return document.querySelector('.chart')?.data?.length")
    page.js("performance.clearResourceTimings()")
    for name in ("a", "b"):
        page.click(f"#runs input[data-name='{name}']")
    page.until(f"return {SHOWN} === 'Choose a run in the list.'")
    assert page.js("return document.querySelector('#view').hidden")
    asked = page.js("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert not [address for address in asked if f"/{tab}?" in address and "run=" not in address]
    page.click("#runs input[data-name='b']")
    page.until("return !document.querySelector('#view').hidden")
    assert page.errors() == []


def test_a_double_click_shows_the_whole_run_and_what_comes_to_it(page, serve, log):
    from selenium.webdriver.common.action_chains import ActionChains

    run = log().steps(range(1, 101))
    page.open(serve(run.path).url).traces("loss")
    page.js("Plotly.relayout(document.querySelector('.chart'), {'xaxis.range': [10, 20]})")
    last_trace(page, "t.x.length === 13")  # those in it, and one on either side
    place = page.find(".card[data-panel='loss'] .nsewdrag")
    ActionChains(page.driver).double_click(place).perform()
    last_trace(page, "t.x.length === 100")
    page.until("return !location.hash.includes('from')")
    run.steps([1.0] * 100, first=101)
    last_trace(page, "t.x.length === 200")
    low, high = page.js("return document.querySelector('.chart').layout.xaxis.range")
    assert low <= 1
    assert high >= 200


def test_the_slider_moves_by_keyboard_one_window_at_a_time(page, serve, log):
    from selenium.webdriver.common.keys import Keys

    log().steps(NOISY)
    page.open(serve(log().path).url).traces("loss")
    shown = []
    for key in [Keys.ARROW_RIGHT] * 5 + [Keys.ARROW_LEFT] * 2:
        page.find("#smooth").send_keys(key)
        before = shown[-1] if shown else "off"
        shown.append(
            page.until(
                "const s = document.querySelector('#smooth-shown').textContent;"
                "return s !== arguments[0] && s",
                before,
            )
        )
    assert shown == [f"{count} points" for count in (2, 3, 4, 5, 6, 5, 4)]


def test_more_smoothing_than_the_slider_has_is_kept(page, serve, log):
    from selenium.webdriver.common.keys import Keys

    log().steps(NOISY)
    page.open(serve(log().path, smooth=5000).url).traces("loss")
    page.until("return document.querySelector('#smooth-shown').textContent === '5000 points'")
    assert page.js("const s = document.querySelector('#smooth'); return s.value === s.max")
    page.find("#smooth").send_keys(Keys.ARROW_LEFT)
    page.until("return /smooth=1\\d\\d\\d$/.test(location.hash)")


def test_many_tabs_are_open_at_once(page, serve, log):
    run = log().steps(NOISY)
    served = serve(run.path)
    first = page.driver.current_window_handle
    page.open(served.url).traces("loss")
    others = []
    try:
        for _ in range(7):  # a browser has six connections to a server
            page.driver.switch_to.new_window("tab")
            others.append(page.driver.current_window_handle)
            page.driver.get(served.url)
            page.traces("loss")
        run.steps([1.0], first=7)
        last_trace(page, "t.x.length === 7")
    finally:
        for handle in others:
            page.driver.switch_to.window(handle)
            page.driver.close()
        page.driver.switch_to.window(first)
    last_trace(page, "t.x.length === 7")


def test_another_token_is_taken_in_the_open_page(page, serve, log):
    log().steps(NOISY)
    served = serve(log().path, token="the-right-one")  # noqa: S106 -- of this test
    page.open(served.url.partition("#")[0])
    page.until("return document.querySelector('#lost').textContent.includes('needs its token')")
    page.js("location.hash = 'token=the-wrong-one'")
    page.until("return !location.hash.includes('token')")
    assert page.js("return !document.querySelector('#lost').hidden")
    page.js("location.hash = 'token=the-right-one'")
    page.traces("loss")
    page.until("return document.querySelector('#lost').hidden")
    page.driver.delete_all_cookies()  # as where the command was started again
    log().steps([1.0], first=7)
    page.until("return document.querySelector('#lost').textContent.includes('needs its token')")
    assert page.js("return location.hash") == ""


@pytest.mark.parametrize(
    "given",
    ["tab=constructor", "window=0.5&smooth=2.5&mode=zzz&axis=loss", "from=60&to=20", "smooth=-1"],
)
def test_an_address_with_what_cannot_be_is_as_one_without(page, serve, log, given):
    log().steps(NOISY)
    page.open(serve(log().path).url + f"#{given}")
    assert page.traces("loss")[0]["x"] == [1, 2, 3, 4, 5, 6]
    assert page.js("return document.querySelector('#lost').hidden")
    assert page.js("return document.querySelector('#mode').value") == "mean"
    assert page.errors() == []


def test_an_address_without_a_choice_takes_the_former_one_back(page, serve, log):
    log().steps(NOISY).steps([0.1], name="lr")
    page.open(serve(log().path).url + "#metrics=training.lr").traces("lr")
    page.js("location.hash = 'log=1'")
    page.until("return document.querySelectorAll('.card').length === 2")


def test_a_range_that_ends_before_it_begins_is_refused(page, serve, log):
    log().steps(range(1, 101))
    page.open(serve(log().path).url).traces("loss")
    page.choose("#from", "60")
    last_trace(page, "t.x[0] === 59")
    page.choose("#to", "20")
    message = "return document.querySelector('#to').validationMessage"
    assert page.js(message) == "The range has to begin before it ends."
    assert "to=20" not in page.js("return location.hash")
    page.click("#reset")
    last_trace(page, "t.x[0] === 1")
    assert page.js(message) == ""
    page.until("return document.querySelector('#to').value === ''")


def test_a_fault_of_the_page_is_not_said_to_be_the_servers(page, serve, log):
    run = log().steps(NOISY)
    page.open(serve(run.path).url).traces("loss")
    page.js("Plotly.react = () => null.nothing")
    run.steps([1.0], first=7)
    page.until("return document.querySelector('#lost').textContent.startsWith('The page has fail')")
    assert page.errors()


def test_the_link_to_the_charts_leaves_what_was_chosen(page, serve, log):
    from selenium.webdriver.common.keys import Keys

    log().steps(NOISY)
    page.open(serve(log().path).url + "#smooth=3").traces("loss")
    page.find("#skip").send_keys(Keys.ENTER)
    page.until("return document.activeElement.id === 'main'")
    assert page.js("return location.hash") == "#smooth=3"


def test_of_many_runs_some_are_shown_and_that_is_said(page, serve, log, tmp_path):
    for number in range(12):
        log(f"{number:02}.jsonl").steps([1.0])
    page.open(serve(tmp_path).url)
    page.until("return document.querySelector('.chart')?.data?.length === 8")
    said = "8 of 12 runs are shown: those that began last."
    assert page.text("#runs-shown") == said
    for theme in ("first", "other"):
        colours = page.js(
            "return [getComputedStyle(document.documentElement).getPropertyValue('--paper'),"
            " ...document.querySelector('.chart').data.map((t) => t.line.color)]"
        )
        paper, *lines = map(luminance, colours)
        for each in lines:
            dark, light = sorted([paper, each])
            assert (light + 0.05) / (dark + 0.05) >= 3, (theme, colours)
        page.click("#theme")
        page.until(
            "return document.querySelector('.chart').data.map((t) => t.line.color).join()"
            " !== arguments[0]",
            ",".join(colours[1:]),
        )


def luminance(colour):
    """As https://www.w3.org/TR/WCAG22/#dfn-relative-luminance defines it."""
    parts = [int(colour.strip()[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_search_leaves_the_groups_as_they_were(page, serve, log):
    run = log().steps(NOISY)
    names = [f"norm[{number}]" for number in range(9)]
    run.write(line("training.step", 0.0, dict.fromkeys(names, 1.0)))
    run.write(line("training.step", 0.0, {"loss": 1.0}, step=7))
    page.open(serve(run.path).url + "#metrics=training.loss").traces("loss")
    groups = "[...document.querySelectorAll('#metrics details')]"
    assert page.js(
        f"return {groups}.map((g) => [g.querySelector('summary').textContent, g.open])"
    ) == [
        ["training (1)", True],
        ["training.norm (9)", False],
    ]
    page.choose("#metric-search", "norm[3")
    page.until(f"return {groups}[1].open")
    page.choose("#metric-search", "")
    page.until(f"return !{groups}[1].open")
    assert page.js(f"return {groups}[0].open")


def test_a_run_without_a_composed_loss_says_what_would_be_seen(page, serve, log):
    log("a.jsonl").steps([1.0])
    log("b.jsonl").write(line("custom_loss.stop", 9.0, {"loss_total": 3.0, "duration": 1}, step=1))
    page.open(serve(log().path.parent).url + "#tab=losses&of=a")
    page.until(f"return ({SHOWN} || '').startsWith('No composed loss')")
    page.choose("#one-run", "b")
    page.until("return !document.querySelector('#view').hidden")


def test_a_span_that_a_killed_attempt_left_open_is_said_to_have_no_end(page, serve, log):
    for attempt in (1, 2):
        told = {"run_id": "r", "attempt": attempt}
        log().write(span_line("stage.run.start", attempt, None, 10.0 * attempt, **told))
        log().write(line("training.step", 10.0 * attempt + 5, {"loss": 1.0}, step=1, **told))
    page.open(serve(log().path).url + "#tab=spans")
    page.until("return document.querySelector('.note')?.textContent.includes('never')")
    assert page.text(".note") == "1 without an end yet. 1 never ended."
    (bars,) = page.js(
        "return document.querySelector('.chart').data.map("
        "(t) => ({x: [...t.x], hover: t.hovertext, shapes: t.marker.pattern.shape}))"
    )
    assert bars["x"] == pytest.approx([5, 5])
    assert bars["shapes"] == ["/", "/"]
    assert "never ended: its attempt at the run did" in bars["hover"][0]


def test_a_tab_that_cannot_be_told_does_not_say_what_another_had_to_say(page, serve, log):
    from telemetry.viewer.page import answers

    log().write(line("custom_loss.stop", 9.0, {"loss_total": 3.0, "duration": 1}, step=1))
    page.open(serve(log().path).url + "#tab=clipping")
    page.until(f"return ({SHOWN} || '').startsWith('No gradient clipper')")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(answers, "losses_told", lambda *_, **__: 1 / 0)
        page.click("#tab-losses")
        page.until("return document.querySelector('#lost').textContent.startsWith('500')")
        assert page.js("return document.querySelector('#empty').hidden")
