"""The handler "webhook": what is posted, compared with what the services document."""

import datetime
import json
import math
from urllib.parse import urlsplit

import numpy as np
import pytest

import handlers
from handlers.webhook_styles import guess

CHECKPOINT = ("training", "checkpoint")
STEP = ("training", "step")
HOOK = "/services/T0/B0/verysecrettoken"


@pytest.fixture
def attach(bus, receiver):
    def attach(**options):
        options = {"url": receiver.url + HOOK, "rate_limit": math.inf, **options}
        return handlers.attach("webhook", registry=bus, **options)

    return attach


@pytest.fixture
def posted(bus, receiver, attach):
    """Emit events at a webhook, and read what was posted."""

    def posted(*events, **options):
        receiver.requests.clear()
        with attach(**options):
            for event in events:
                bus.execute(*event)
        assert {path for path, _, _ in receiver.requests} <= {HOOK}
        assert {headers["Content-Type"] for _, headers, _ in receiver.requests} <= {
            "application/json"
        }
        return [json.loads(body) for _, _, body in receiver.requests]

    return posted


def test_slack_gets_a_text(posted):
    assert posted(
        (("workflow", "run", "stop"), {"duration": 2_718_000_000_000}, {"workflow": "w"}),
        (("workflow", "run", "exception"), {}, {"reason": ValueError("bad batch")}),
        (CHECKPOINT, {"size_bytes": 10}, {"checkpoint_name": "epoch_1"}),
        style="slack",
    ) == [
        {"text": "Training completed in 45.3 minutes"},
        {"text": "Training FAILED: ValueError: bad batch"},
        {"text": "Checkpoint saved: epoch_1"},
    ]


def test_discord_gets_a_content_that_mentions_nobody(posted):
    assert posted(
        (CHECKPOINT, {}, {"checkpoint_name": "*a_b* @everyone <@123>"}), style="discord"
    ) == [
        {
            "content": r"Checkpoint saved: \*a\_b\* @everyone \<@123\>",
            "allowed_mentions": {"parse": []},
        }
    ]


def test_slack_gets_no_mention_and_no_link_from_an_event(posted):
    assert posted(
        (CHECKPOINT, {}, {"checkpoint_name": "<!channel> & <https://evil|x>"}), style="slack"
    ) == [{"text": "Checkpoint saved: &lt;!channel&gt; &amp; &lt;https://evil|x&gt;"}]


def test_json_gets_every_event(posted):
    bodies = posted(  # a URL of which nothing is known
        (STEP, {"loss": math.nan, "lr": np.float32(0.5), "n": 2**70}, {"step": 1, "who": "é😀"}),
        (("a", "b"), {}, {"reason": ValueError("x")}),
    )
    assert [(body["event"], body["measurements"], body["metadata"]) for body in bodies] == [
        (
            "training.step",
            {"loss": "NaN", "lr": 0.5, "n": "1180591620717411303424"},
            {"step": 1, "who": "é😀"},
        ),
        ("a.b", {}, {"reason": "ValueError('x')"}),
    ]


def test_json_has_the_time_of_the_emission(attach, bus, receiver):
    receiver.answers = [(503, {})]
    with attach() as webhook:
        before = datetime.datetime.now(datetime.UTC)
        bus.execute(STEP, {}, {})
        after = datetime.datetime.now(datetime.UTC)
        assert webhook.flush(60)  # delivered by the second attempt, which is later
    times = [json.loads(body)["timestamp"] for _, _, body in receiver.requests]
    assert len(times) == 2
    assert all(before <= datetime.datetime.fromisoformat(time) <= after for time in times)


def test_a_template_replaces_adds_or_silences_a_message(posted):
    assert posted(
        (("workflow", "run", "stop"), {"duration": 10**9}, {"workflow": "fit"}),
        (CHECKPOINT, {}, {"checkpoint_name": "x"}),
        (("training", "epoch"), {"epoch_loss": np.float64(0.123456)}, {"epoch": 3}),
        (STEP, {"loss": 9.0}, {"step": 1}),
        (STEP, {"loss": 0.5}, {"step": 2}),
        style="slack",
        templates={
            ("workflow", "run", "stop"): "*{workflow}* done in {duration} on {host} {{ok}}",
            CHECKPOINT: None,
            (
                "training",
                "epoch",
            ): "{event} {epoch}: {epoch_loss:.2f} ({epoch_loss}) {measurements}",
            STEP: lambda event, measurements, metadata: (
                f"step {metadata['step']} <!here>" if measurements["loss"] > 1 else None
            ),
        },
    ) == [
        {"text": "*fit* done in 1.0 seconds on ? {ok}"},
        {"text": "training.epoch 3: 0.12 (0.12346) epoch_loss=0.12346"},
        {"text": "step 1 &lt;!here&gt;"},
    ]


def test_the_other_default_messages(posted):
    said = posted(
        (("stage", "run", "stop"), {"duration": 10**9}, {"stage": "load", "success": True}),
        (("stage", "run", "stop"), {}, {"stage": "load", "success": False, "error": "no disk"}),
        (("stage", "run", "exception"), {}, {"stage": "fit", "reason": OSError("gone")}),
        (CHECKPOINT, {}, {"path": "/runs/1.pt"}),
        (("eval", "complete"), {"accuracy": 0.91, "f1": 0.5}, {"model": "m"}),
        (("model", "registered"), {}, {"name": "m", "version": 3}),
        (
            ("alert", "raised"),
            {"value": 0.2, "limit": 0.1},
            {"rule": "kl", "severity": "critical", "message": "kl is 0.2, above 0.1"},
        ),
        (("alert", "cleared"), {"value": 0.05}, {"rule": "kl"}),
        (
            ("telemetry", "handler", "failure"),
            {},
            {"handler_id": "jsonl", "reason": OSError("full")},
        ),
        (STEP, {"loss": 0.5}, {"step": 1}),
        (("training", "epoch"), {"epoch_loss": 0.5}, {"epoch": 1}),
        (("workflow", "run", "start"), {}, {}),
        style="slack",
    )
    assert [message["text"] for message in said] == [
        "Stage load completed in 1.0 seconds",
        "Stage load FAILED: no disk",
        "Stage fit FAILED: OSError: gone",
        "Checkpoint saved: /runs/1.pt",
        "Evaluation of m completed: accuracy=0.91, f1=0.5",
        "Model registered: m 3",
        "Alert (critical): kl is 0.2, above 0.1",
        "Alert cleared: kl",
        "Handler jsonl failed: OSError: full",
    ]


@pytest.mark.parametrize(
    ("style", "key", "limit"), [("slack", "text", 40_000), ("discord", "content", 2_000)]
)
def test_a_message_that_is_too_long_is_cut(posted, style, key, limit):
    long = {STEP: lambda event, measurements, metadata: metadata["text"]}
    events = [(STEP, {}, {"text": text}) for text in ("a" * limit, "a" * (limit + 1), "😀" * limit)]
    whole, short, faces = (m[key] for m in posted(*events, style=style, templates=long))
    assert whole == "a" * limit
    assert short == "a" * (limit - 1) + "…"
    # An emoji is two units of UTF-16, which is how such limits are counted at worst.
    assert faces == "😀" * (limit // 2 - 1) + "…"


def test_emoji_line_breaks_and_control_characters_of_values(posted):
    assert posted(
        (CHECKPOINT, {}, {"checkpoint_name": "a\nb\x1b[31m é😀 \ud800 \u202e"}), style="slack"
    ) == [{"text": r"Checkpoint saved: a\nb\x1b[31m é😀 \ud800 \u202e"}]


@pytest.mark.parametrize(("style", "key"), [("slack", "text"), ("discord", "content")])
def test_half_a_character_in_a_message_is_written_out(posted, style, key):
    half = {STEP: lambda event, measurements, metadata: "half: \ud800"}
    (message,) = posted((STEP, {}, {}), style=style, templates=half)
    assert message[key] == r"half: \ud800"


def test_a_blank_message_is_not_sent(posted):
    templates = {CHECKPOINT: " ", STEP: lambda *_: ""}
    assert posted((CHECKPOINT, {}, {}), (STEP, {}, {}), style="slack", templates=templates) == []


def test_headers_and_credentials_go_along(posted, bus, receiver):
    posted((STEP, {}, {}), headers={"Authorization": "Bearer abcdefgh", "X-Run": "7"})
    ((_, headers, _),) = receiver.requests
    assert (headers["Authorization"], headers["X-Run"]) == ("Bearer abcdefgh", "7")

    host = urlsplit(receiver.url).netloc
    with handlers.attach("webhook", registry=bus, url=f"http://user:pa%2Fss@{host}/x?a=1"):
        bus.execute(STEP, {}, {})
    path, headers, _ = receiver.requests[-1]
    assert path == "/x?a=1"
    assert headers["Authorization"] == "Basic dXNlcjpwYS9zcw=="  # base64 of "user:pa/ss"


def test_the_style_is_guessed_from_the_host():
    slack = "https://hooks.slack.com/services/T0/B0/x"
    assert guess(slack) == guess("https://hooks.slack-gov.com/services/T/B/x") == "slack"
    for discord in (
        "https://discord.com/api/webhooks/1/x",
        "https://canary.discord.com/api/v10/webhooks/1/x",
        "https://discordapp.com/api/webhooks/1/x",
    ):
        assert guess(discord) == "discord"
    for other in (
        "https://hooks.slack.com.example.org/x",
        "https://notdiscord.com/api/webhooks/1/x",
        "https://discord.com/channels/1",
        "http://localhost:80/hooks.slack.com",
    ):
        assert guess(other) == "json"


def test_events_come_in_order_and_none_is_missing(posted):
    bodies = posted(*[(STEP, {"loss": 0.5}, {"step": step}) for step in range(600)])
    assert [body["metadata"]["step"] for body in bodies] == list(range(600))
