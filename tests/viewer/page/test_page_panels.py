"""The panels of clipping, losses, spans and alerts, in a real browser."""

import pytest

from .conftest import line, span_line

TABS = {"clipping": "No gradient clipper", "losses": "No composed loss", "spans": "No span"}


def chart(page, title, condition="true"):
    """The lines of the chart with a title, once they are as wanted."""
    return page.until(
        "const card = [...document.querySelectorAll('.card')]"
        ".find((each) => each.querySelector('h3').textContent === arguments[0]);"
        "const d = card?.querySelector('.chart').data;"
        f"return d?.length && ({condition}) && d.map((t) => ({{"
        "name: t.name, x: [...t.x], y: [...t.y], base: t.base, text: t.text, hover: t.hovertext,"
        "color: t.marker?.color, edges: t.marker?.line?.color, shapes: t.marker?.pattern?.shape}))",
        title,
    )


@pytest.fixture
def clipped(log):
    """Four clippings, of which the second and the fourth clip."""
    norms, scales = [1.0, 4.0, 1.5, 8.0], [1.0, 0.5, 1.0, 0.25]
    return log().write(
        *(
            line(
                "smartclip.clip.stop",
                step,
                {"grad_norm": norm, "threshold": 2.0, "scale": scale, "duration": 1000},
                step=step,
                algo="autoclip",
                scope="global",
            )
            for step, (norm, scale) in enumerate(zip(norms, scales, strict=True), 1)
        )
    )


def test_the_clipping_panel_shows_norms_rate_and_scale(page, serve, clipped):
    page.open(serve(clipped.path).url + "#tab=clipping&window=2")
    norm, threshold, marks = chart(page, "Gradient norm and threshold")
    assert (norm["y"], threshold["y"]) == ([1, 4, 1.5, 8], [2, 2, 2, 2])
    assert (marks["name"], marks["x"], marks["y"]) == ("clipped", [2, 4], [4, 8])
    assert chart(page, "Clip rate")[0]["y"] == [0, 0.5, 0.5, 0.5]
    assert chart(page, "Scale")[0]["y"] == [1, 0.5, 1, 0.25]
    page.until("return document.body.textContent.includes('2 of 4 steps were clipped (50.0 %).')")
    page.choose("#window", "1")
    chart(page, "Clip rate", "d[0].y[3] === 1 && d[0].y[2] === 0")
    assert page.errors() == []


@pytest.fixture
def composed(log):
    """Two steps of a loss with two regularizers, one of which lowers it."""
    run = log()
    for step in (1, 2):
        for name, value, contribution, norm in (("l2", 4.0, 0.4, 3.0), ("entropy", 2.0, -0.2, 1.0)):
            run.write(
                line(
                    "regularizer.compute.stop",
                    step,
                    {
                        "value": value,
                        "contribution": contribution,
                        "grad_norm": norm,
                        "duration": 1,
                    },
                    step=step,
                    regularizer_name=name,
                )
            )
        measured = {"loss_total": 3.2, "regularizer_total": 0.2, "total_grad_norm": 2.0}
        run.write(line("custom_loss.stop", step, measured | {"duration": 1}, step=step))
    return run


def test_the_loss_panel_stacks_the_terms_and_shows_the_gradients_shares(page, serve, composed):
    page.open(serve(composed.path).url + "#tab=losses")
    terms = {each["name"]: each for each in chart(page, "Loss by its terms")}
    assert [terms[name]["y"] for name in ("base loss", "l2", "entropy", "total")] == [
        pytest.approx([3.0, 3.0]),
        [0.4, 0.4],
        [-0.2, -0.2],
        [3.2, 3.2],
    ]
    assert page.js("return document.querySelector('.chart').layout.barmode") == "relative"
    shares = {
        each["name"]: each
        for each in chart(page, "Gradient norm of each term, by that of the total")
    }
    # the weight (0.4 / 4 and -0.2 / 2) times the norm, by the total's 2
    assert shares["l2"]["y"] == pytest.approx([0.15, 0.15])
    assert shares["entropy"]["y"] == pytest.approx([0.05, 0.05])


@pytest.fixture
def traced(log):
    """A run that is open, a stage that has ended, and in it an operation that failed."""
    return log().write(
        span_line("workflow.run.start", 1, None, 0.0, workflow="pretrain"),
        span_line("stage.run.start", 2, 1, 1.0, stage="<b>train</b>"),
        span_line(
            "performance.operation.exception",
            3,
            2,
            4.0,
            duration=2.0,
            operation="forward",
            reason="RuntimeError('<i>out of memory</i>')",
        ),
        span_line("stage.run.stop", 2, 1, 5.0, duration=4.0, stage="<b>train</b>"),
        line("training.step", 6.0, {"loss": 1.0}, step=1),
    )


def test_spans_are_nested_and_failed_and_open_ones_are_marked(page, serve, traced):
    page.open(serve(traced.path).url + "#tab=spans")
    spans = {each["name"]: each for each in chart(page, "Spans")}
    run, stage = spans["workflow.run"], spans["stage.run"]
    operation = spans["performance.operation"]
    assert [each["y"] for each in (run, stage, operation)] == [[0], [1], [2]]
    assert (run["base"], run["x"], run["shapes"]) == ([0], [pytest.approx(6)], ["/"])
    assert (stage["base"], stage["x"], stage["shapes"]) == ([1], [pytest.approx(4)], [""])
    assert (operation["base"], operation["x"]) == ([2], [pytest.approx(2)])
    assert operation["text"][0].startswith("✖")
    assert operation["edges"] != [operation["color"]]
    assert "&lt;i&gt;out of memory" in operation["hover"][0]
    assert page.text(".note") == "1 failed. 1 without an end yet."


def test_a_zoom_into_the_spans_asks_for_those_of_that_time(page, serve, traced):
    page.open(serve(traced.path).url + "#tab=spans")
    chart(page, "Spans")
    page.js("Plotly.relayout(document.querySelector('.chart'), {'xaxis.range': [5.2, 6]})")
    (run,) = chart(page, "Spans", "d.length === 1")
    assert run["name"] == "workflow.run"
    assert page.js("return document.querySelector('#from').value") == "5.2"


def test_a_span_that_ends_is_no_longer_open(page, serve, traced):
    page.open(serve(traced.path).url + "#tab=spans")
    chart(page, "Spans")
    traced.write(span_line("workflow.run.stop", 1, None, 8.0, duration=8.0, workflow="pretrain"))
    run = chart(page, "Spans", "d.at(-1).x[0] > 7.9 && d.at(-1).marker.pattern.shape[0] === ''")[-1]
    assert run["x"] == [pytest.approx(8)]


def test_alerts_and_failures_are_listed_as_text_and_new_ones_are_told(page, serve, log):
    run = (
        log()
        .steps([1.0])
        .write(
            line(
                "alert.raised",
                1.0,
                {"value": 9.0},
                rule="spike",
                severity="critical",
                step=1,
                message="<b>training.loss</b> is 9",
            ),
            line(
                "telemetry.handler.overflow",
                2.0,
                {"dropped": 120},
                handler_id="datadog",
                policy="drop_oldest",
            ),
            line(
                "telemetry.handler.failure",
                3.0,
                {},
                handler_id="wandb",
                kind="error",
                event_name=["training", "step"],
                reason="ConnectionError('no route')",
            ),
            line("alert.cleared", 4.0, {"value": 1.0}, rule="spike", message="it is 1 again"),
        )
    )
    page.open(serve(run.path).url + "#tab=problems")
    page.find(".problems li")
    items = "[...document.querySelectorAll('.problems li')]"
    assert page.js(f"return {items}.map((i) => i.className)") == [
        "info",
        "critical",
        "warning",
        "critical",
    ]
    assert page.js(f"return {items}.map((i) => i.querySelector('.text').textContent)") == [
        "it is 1 again",
        "handler wandb failed at training.step: ConnectionError('no route')",
        "handler datadog lost 120 events (drop_oldest)",
        "<b>training.loss</b> is 9",
    ]
    assert page.text("#problem-count") == "3"
    assert page.text("#news") == ""
    run.write(
        line(
            "alert.raised",
            5.0,
            {"value": 9.0},
            rule="spike",
            severity="warning",
            message="it is 9 again",
        )
    )
    page.until(f"return {items}.length === 5")
    page.until("return document.querySelector('#news').textContent")
    assert page.text("#news") == "alert.raised: it is 9 again"


@pytest.mark.parametrize("tab", TABS)
def test_a_panel_without_anything_says_what_would_fill_it(page, serve, log, tab):
    log().steps([1.0])
    page.open(serve(log().path).url + f"#tab={tab}")
    page.until("return !document.querySelector('#empty').hidden")
    assert page.text("#empty").startswith(TABS[tab])
