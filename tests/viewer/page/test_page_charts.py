"""The page in a real browser: what it draws, and what it does with what a run writes."""

import pytest

HOSTILE = "<script>alert(1)</script>"


def test_a_chart_shows_the_recorded_values(page, serve, log):
    log().steps([3.0, 2.0, 2.5])
    served = serve(log().path)
    page.open(served.url)
    (loss,) = page.traces("loss")
    assert (loss["x"], loss["y"]) == ([1, 2, 3], [3, 2, 2.5])
    assert page.text("#status") == "run: 3 records"
    assert page.errors() == []


def test_nothing_is_asked_of_another_host(page, serve, log):
    log().steps([3.0, 2.0])
    page.open(serve(log().path).url).traces("loss")
    hosts = page.js(
        "return performance.getEntriesByType('resource').map((e) => new URL(e.name).host)"
    )
    assert set(hosts) == {page.js("return location.host")}
    assert len(hosts) > 5


def test_new_points_of_a_run_appear_by_themselves(page, serve, log):
    run = log().steps([3.0, 2.0])
    page.open(serve(run.path).url).traces("loss")
    page.js("window.isTheSame = true")
    run.steps([1.0], first=3)
    page.until("return document.querySelector('.chart').data[0].x.length === 3")
    assert page.traces("loss")[0]["y"] == [3, 2, 1]
    assert page.js("return window.isTheSame")


def test_a_metric_that_comes_later_can_be_chosen(page, serve, log):
    run = log().steps([3.0, 2.0])
    page.open(serve(run.path).url).traces("loss")
    run.steps([0.5], first=3, name="entropy")
    page.find("#metrics input[data-name='training.entropy']")
    assert page.traces("entropy")[0]["y"] == [0.5]


def test_new_points_leave_the_zoom_as_it_is(page, serve, log):
    run = log().steps(range(1, 101))
    page.open(serve(run.path).url + "#from=10&to=20").traces("loss")
    run.steps([0.5], first=15)
    page.until("return document.querySelector('#status').textContent.includes('101 records')")
    page.until("return document.querySelector('.chart').data[0].y.includes(0.5)")
    assert page.js("return document.querySelector('.chart').layout.xaxis.range") == [10, 20]


def test_a_run_that_begins_in_the_directory_appears(page, serve, log, tmp_path):
    log("a.jsonl").steps([3.0, 2.0])
    page.open(serve(tmp_path).url).traces("loss")
    log("b.jsonl").steps([1.0, 0.5])
    page.find("#runs input[data-name='b']")
    page.until("return document.querySelector('.chart').data.length === 2")
    a, b = page.traces("loss")
    assert (a["y"], b["y"]) == ([3, 2], [1, 0.5])
    assert a["color"] != b["color"]


def test_an_empty_directory_is_waited_for(page, serve, log, tmp_path):
    page.open(serve(tmp_path).url)
    page.until("return document.querySelector('#status').textContent.startsWith('Waiting for')")
    log().steps([3.0])
    assert page.traces("loss")[0]["y"] == [3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "There is no record yet."),
        ('{"timestamp":null,"event":"a","measurements":{},"metadata":{}}\n', "have no metrics"),
    ],
)
def test_a_log_without_metrics_is_said_to_have_none(page, serve, log, content, said):
    served = serve(log().write(content).path)
    page.open(served.url)
    page.until("return !document.querySelector('#empty').hidden")
    assert said in page.text("#empty")


def test_a_hostile_name_is_text_everywhere(page, serve, log):
    run = log("<img src=x onerror=alert(1)>.jsonl").steps([1.0, 2.0], name=HOSTILE)
    run.steps([3.0, "NaN"], first=3)
    log("b.jsonl").steps([1.0, 2.0])
    page.open(serve(run.path, log("b.jsonl").path).url)
    page.find("#metrics input")
    name = f"training.{HOSTILE}".replace("/", ".")
    names = page.js(
        "return [...document.querySelectorAll('#metrics label')].map((l) => l.textContent)"
    )
    assert name in names or f"training.{HOSTILE}" in names
    page.until("return document.querySelectorAll('.chart .js-line').length > 1")
    page.js(
        "const c = document.querySelectorAll('.chart');"
        "for (const each of c) Plotly.Fx.hover(each, {xval: 2})"
    )
    page.until("return document.querySelector('.hoverlayer text')")
    assert not page.js(
        "return document.querySelector('script:not([src]), img, .chart script, .legend script')"
    )
    assert any(
        HOSTILE in (text or "")
        for text in page.js(
            "return [...document.querySelectorAll('.card h3')].map((h) => h.textContent)"
        )
    )
    assert page.errors() == []


def test_a_value_that_is_not_finite_is_marked_where_it_was(page, serve, log):
    log().steps([3.0, "NaN", 2.0])
    page.open(serve(log().path).url)
    loss, odd = page.traces("loss")
    assert loss["y"] == [3, None, 2]
    assert (odd["x"], odd["y"], odd["text"]) == ([2], [3], ["NaN"])


def test_metrics_of_one_unit_share_a_chart_and_others_have_their_own(page, serve, log):
    run = log().steps([3.0, 2.0]).steps([0.1, 0.1], name="lr")
    run.write(
        '{"event":"training.eval","measurements":{"loss":2.2},"metadata":{"split":"val","step":2}}\n'
    )
    page.open(serve(run.path).url)
    assert [line["name"] for line in page.traces("loss")] == ["training.loss", "val.loss"]
    assert [line["name"] for line in page.traces("lr")] == ["training.lr"]


def test_the_page_says_that_the_server_is_gone(page, run_command, log):
    log().steps([3.0])
    served = run_command(log().path)
    page.open(served.url).traces("loss")
    served.process.terminate()
    page.until("return !document.querySelector('#lost').hidden")
    assert "does not answer" in page.text("#lost")
