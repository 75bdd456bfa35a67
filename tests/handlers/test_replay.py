"""Recorded events are emitted again: when, to whom, and what happens when a handler fails."""

import threading
from pathlib import Path

import pytest

import handlers
from handlers import DeliveryError
from handlers.replay import Replay
from handlers.stopping import Stop
from telemetry.viewer.logs.entries import Entry

STEP = ("training", "step")
SECOND = 1_000_000_000
LONG_AGO = 1795257000123456789


def entry(line, time_ns=LONG_AGO):
    return Entry(Path("run.jsonl"), line, time_ns, STEP, {"loss": 0.5}, {"step": line})


class FakeStop(Stop):
    """Waits by setting the clock."""

    def __init__(self):
        super().__init__()
        self.now = 100.0
        self.waits = []

    def wait(self, seconds, least=0.0):
        self.waits.append(round(seconds, 6))
        self.now += seconds
        return not self.asked


@pytest.fixture
def replay(bus):
    def replay(*attachments, stop=None, speed=0.0, **options):
        return Replay(bus, attachments, stop=stop or Stop(), speed=speed, **options)

    return replay


@pytest.fixture
def patient(attach):
    """Attach the gated sink as the command attaches its handlers."""
    return lambda **options: attach(background=True, overflow="block", **options)


def test_each_event_has_its_own_time_and_nothing_waits(replay, patient):
    one = patient()
    totals = replay(one).run([entry(1), entry(2, LONG_AGO + 3600 * SECOND)])
    assert one.handler.times == [LONG_AGO, LONG_AGO + 3600 * SECOND]
    assert one.handler.steps == [1, 2]
    assert one.handler.flushed == 1
    assert (totals.events, totals.undated, totals.last.line, totals.lost) == (2, 0, 2, {})


def test_at_a_speed_it_takes_as_long_as_it_took_divided_by_that(replay, patient):
    stop = FakeStop()
    times = [LONG_AGO + second * SECOND for second in (0, 10, 4, 30)]
    events = [entry(n, time_ns) for n, time_ns in enumerate([*times, None])]
    replay(patient(), stop=stop, speed=2.0, clock=lambda: stop.now).run(events)
    assert stop.now == 100.0 + 30 / 2
    assert max(stop.waits) <= 1  # between which it looks at the handlers


def test_a_handler_that_fails_while_it_waits_ends_it(replay, patient, caplog):
    one, stop = patient(), FakeStop()
    replaying = replay(one, stop=stop, speed=1.0, clock=lambda: stop.now)

    def events():
        yield entry(1)
        one.handler.site.registry.detach(one.id)
        yield entry(2, LONG_AGO + 10**9 * SECOND)

    with pytest.raises(DeliveryError, match="has failed and was detached"):
        replaying.run(events())
    assert stop.now < 110


def test_how_far_all_have_delivered_is_known_while_it_goes_on(replay, patient):
    """The clock goes on by a second between two events; one handler waits at its gate."""
    one, two, stop = patient(id="one"), patient(id="two"), FakeStop()
    replaying = replay(one, two, stop=stop, clock=lambda: stop.now)
    marks = []

    def events():
        for number in range(1, 4):
            yield entry(number)
        wait_until_delivered(replaying)
        yield entry(4)
        marks.append(replaying.totals.delivered.line)
        two.handler.gate.clear()
        yield from (entry(number) for number in (5, 6, 7))
        marks.append(replaying.totals.delivered.line)
        two.handler.gate.set()

    def later():
        for event in events():
            yield event
            stop.now += 1

    totals = replaying.run(later())
    assert marks[0] in (1, 2, 3)  # one was under way when the next could have begun
    assert marks[1] <= 4
    assert (totals.last.line, totals.delivered.line) == (7, 7)


def wait_until_delivered(replaying):
    for flush in replaying._flushes:
        flush.join(60)


def test_nothing_counts_as_delivered_behind_what_was_lost_and_could_be_sent_again(replay, patient):
    one = patient()
    handlers.Losses(one.handler.site, "retries_exhausted").add(1)
    totals = replay(one).run([entry(1)])
    assert (totals.last.line, totals.delivered) == (1, None)


def test_what_no_place_would_ever_take_is_no_reason_to_send_all_again(replay, patient):
    one = patient()
    handlers.Losses(one.handler.site, "refused").add(1)
    assert replay(one).run([entry(1)]).delivered.line == 1


def test_what_was_asked_to_stop_goes_no_further(replay, patient):
    one, stop = patient(), FakeStop()

    def events():
        for number in range(9):
            if number == 2:
                stop()
            yield entry(number)

    totals = replay(one, stop=stop).run(events())
    assert (one.handler.steps, totals.last.line) == ([0, 1], 1)


def test_asked_to_stop_while_it_waits_it_sends_nothing_more(replay, patient):
    one, stop = patient(), FakeStop()
    stop.wait = lambda seconds, least=0.0: stop()  # which is None: no further
    events = [entry(1), entry(2, LONG_AGO + SECOND)]
    totals = replay(one, stop=stop, speed=1.0, clock=lambda: 0.0).run(events)
    assert (one.handler.steps, totals.last.line) == ([1], 1)


def test_a_handler_that_fails_ends_it(replay, patient, caplog):
    one = patient(queue_size=1)
    one.handler.error = OSError("gone")
    replaying = replay(one)
    with pytest.raises(DeliveryError) as caught:
        replaying.run(entry(n) for n in range(10_000))
    assert replaying.totals.events < 10  # one failed, one waited, and one found no room
    assert str(caught.value) == (
        "Handler 'gated' has failed and was detached. Of what it was given last, some may be "
        "missing."
    )


def test_the_other_handlers_get_what_was_sent_before_one_failed(replay, patient, bus, caplog):
    one = patient(id="one")
    two = handlers.attach("memory", registry=bus, background=True)
    one.handler.error = OSError("gone")
    one.handler.gate.clear()

    def events():
        yield entry(1)
        yield entry(2)
        one.handler.gate.set()

    with pytest.raises(DeliveryError):
        replay(one, two).run(events())
    assert two.flush(60)
    assert [event.metadata["step"] for event in two.handler.events if event.event == STEP] == [1, 2]


def test_a_handler_that_hangs_is_let_go_after_a_while(replay, patient, monkeypatch):
    monkeypatch.setattr("handlers.stopping.GRACE", 0.05)
    one, stop = patient(queue_size=1, flush_timeout=0.05), Stop()
    one.handler.gate.clear()
    replaying = replay(one, stop=stop)
    caught = []

    def run():
        try:
            replaying.run(entry(n) for n in range(10))
        except DeliveryError as error:
            caught.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert one.handler.entered.wait(60)
    stop()
    thread.join(60)
    assert not thread.is_alive()
    one.handler.gate.set()
    assert caught == [
        "Handler 'gated' has not delivered in time. Of what it was given last, some may be missing."
    ]
    replaying.count_losses()
    assert sum(replaying.totals.lost.values()) > 0
    assert replaying.totals.delivered is None


def test_losses_are_counted_over_all_handlers(replay, patient):
    one, two = patient(id="one"), patient(id="two")
    replaying = replay(one, two)
    replaying.run([entry(1)])
    for attachment, count in ((one, 2), (two, 3)):
        handlers.Losses(attachment.handler.site, "refused").add(count)
    handlers.Losses(two.handler.site, "not_sent").add(4)
    replaying.count_losses()
    assert replaying.totals.lost == {"refused": 5, "not_sent": 4}
