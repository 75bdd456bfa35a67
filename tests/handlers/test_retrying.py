import random
import socket
import threading
import time
from email.utils import formatdate

import pytest

from handlers import Losses, Retrying, Secrets, Site
from handlers import retrying as module
from handlers.patience import PATIENCE, Patience
from handlers.retrying import LONGEST_WAIT, retry_after

ALL = (("**",),)


class PassesError(Exception):
    """What a sink's other end says when it is busy."""

    def __init__(self, said="busy", seconds=0.0):
        super().__init__(said)
        self.seconds = seconds


class Waits(Patience):
    """Waits not at all, and remembers how long it would have been."""

    def __init__(self, ends_after=100):
        super().__init__()
        self.seconds = []
        self.least = []
        self.ends_after = ends_after

    def wait(self, seconds, least=0.0):
        self.seconds.append(seconds)
        self.least.append(least)
        return len(self.seconds) < self.ends_after


def passes(error):
    return error.seconds if isinstance(error, PassesError) else None


class Failing:
    """An attempt that fails with these errors, one by one, and then succeeds."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def make(bus):
    def make(**options):
        site = Site("sink", bus, ALL, "zero")
        losses = Losses(site, "undelivered")
        return Retrying(site, "the place", **{"passes": passes, "losses": losses, **options})

    return make


@pytest.fixture
def on_worker():
    """Give this thread the patience of a worker."""
    tokens = []

    def on_worker(patience):
        tokens.append(PATIENCE.set(patience))
        return patience

    yield on_worker
    for token in reversed(tokens):
        PATIENCE.reset(token)


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


def test_on_a_worker_it_goes_on_until_it_succeeds(make, on_worker, drops):
    patience = on_worker(Waits())
    attempt = Failing(*[PassesError()] * 3)
    assert make()(attempt, size=1) is True
    assert (attempt.calls, len(patience.seconds), drops) == (4, 3, [])


def test_the_back_off_doubles_to_half_a_minute_and_starts_anew(make, on_worker, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    patience = on_worker(Waits())
    retrying = make()
    retrying(Failing(*[PassesError()] * 8), size=1)
    assert patience.seconds == [0.5, 1, 2, 4, 8, 16, 30, 30]
    retrying(Failing(PassesError()), size=1)
    assert patience.seconds[8:] == [0.5]


def test_the_back_off_is_spread_over_its_upper_half(make, on_worker):
    patience = on_worker(Waits())
    for _ in range(50):
        make()(Failing(PassesError()), size=1)
    assert all(0.25 <= seconds <= 0.5 for seconds in patience.seconds)
    assert len(set(patience.seconds)) > 10


def test_who_asks_for_more_time_gets_it(make, on_worker):
    patience = on_worker(Waits())
    make()(Failing(PassesError(seconds=7.0)), size=1)
    assert (patience.seconds, patience.least) == ([7.0], [7.0])


def test_who_asked_for_more_time_gets_it_from_the_next_that_comes_as_well(
    make, on_worker, monkeypatch
):
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.0)
    retrying = make()
    assert retrying.once(Failing(PassesError(seconds=7.0))) is False
    patience = on_worker(Waits())
    assert retrying(Failing(), size=1) is True
    assert patience.least == [7.0]


def test_an_error_that_does_not_pass_is_raised_at_once(make, on_worker, drops):
    on_worker(Waits())
    attempt = Failing(KeyError("no"))
    with pytest.raises(KeyError, match="no"):
        make()(attempt, size=1)
    assert (attempt.calls, drops) == (1, [])


def test_given_up_by_who_waits_for_the_worker_nothing_is_counted_twice(make, on_worker, drops):
    on_worker(Waits(ends_after=3))
    attempt = Failing(*[PassesError()] * 10)
    assert make()(attempt, size=5) is False
    assert (attempt.calls, drops) == (3, [])


def test_an_outage_is_said_once_and_its_end_once(make, on_worker, caplog):
    on_worker(Waits())
    retrying = make(secrets=Secrets("hiddenkey"))
    retrying(Failing(PassesError("key hiddenkey"), PassesError("again")), size=1)
    retrying(Failing(), size=1)
    down, up = messages(caplog)
    assert down == (
        "Handler 'sink' cannot reach the place (PassesError: key ***); it goes on trying."
    )
    assert up == "Handler 'sink' reaches the place again, after 0 s."
    retrying(Failing(PassesError("another")), size=1)
    assert len(messages(caplog)) == 4


def test_in_an_emitters_thread_there_is_one_attempt_and_none_while_the_back_off_lasts(
    make, drops, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    retrying = make()
    attempt = Failing(*[PassesError()] * 2)
    assert retrying(attempt, size=2) is False
    assert retrying(attempt, size=3) is False
    assert attempt.calls == 1
    now[0] += 0.51
    assert retrying(attempt, size=1) is False
    assert attempt.calls == 2
    now[0] += 1.01
    assert retrying(attempt, size=1) is True
    assert attempt.calls == 3
    assert sum(count for count, _ in drops) <= 6  # announced once a second, of the clock above
    assert retrying._losses.total == 6


def test_in_an_emitters_thread_what_does_not_pass_is_raised(make):
    with pytest.raises(KeyError):
        make()(Failing(KeyError("no")), size=1)


def test_a_refused_connection_and_then_a_server(make, on_worker):
    on_worker(Patience())
    refused = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # what does not listen refuses

        def connect():
            try:
                socket.create_connection(server.getsockname(), timeout=60).close()
            except OSError as error:
                refused.append(error)
                server.listen()
                raise PassesError(str(error)) from None

        assert make()(connect, size=1) is True
    assert [type(error) for error in refused] == [ConnectionRefusedError]


def test_closing_ends_a_long_back_off_with_another_attempt(make, monkeypatch):
    monkeypatch.setattr(module, "FIRST", 3600.0)
    patience = Patience()
    attempt = Failing(PassesError())
    ended = []

    def work():
        PATIENCE.set(patience)
        ended.append(make()(attempt, size=1))

    thread = threading.Thread(target=work)
    thread.start()
    patience.closing.set()
    thread.join(60)
    assert ended == [True]
    assert attempt.calls == 2


def test_when_nobody_waits_any_more_there_is_no_other_attempt(make, on_worker):
    patience = on_worker(Patience())
    patience.closing.set()
    patience.over.set()
    attempt = Failing(*[PassesError()] * 10)
    assert make()(attempt, size=1) is False
    assert attempt.calls == 1


def test_closing_does_not_ask_before_the_time_that_was_asked_for(make, on_worker):
    patience = on_worker(Patience())
    patience.closing.set()
    patience.deadline = time.monotonic() + 60
    attempt = Failing(PassesError(seconds=0.6))
    began = time.monotonic()
    assert make()(attempt, size=1) is True
    assert time.monotonic() - began >= 0.6  # three times as long as the hurry of the end
    attempt = Failing(PassesError(seconds=3600.0))
    assert make()(attempt, size=1) is False  # at once: that is later than the end
    assert (attempt.calls, patience.over.is_set()) == (1, True)


def test_once_hurries_at_the_end_but_not_before_the_time_that_was_asked_for(
    make, on_worker, monkeypatch
):
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.0)
    retrying, asking = make(), make()
    assert not retrying.once(Failing(PassesError()))
    assert not asking.once(Failing(PassesError(seconds=60.0)))
    assert retrying.left > 0
    on_worker(Patience()).closing.set()
    assert retrying.left == 0
    assert asking.left == 60
    assert retrying.once(Failing()) is True
    assert asking.once(Failing()) is False


def test_how_long_to_wait_is_seconds_or_a_date():
    assert retry_after("3") == 3.0
    assert 3000 < retry_after(formatdate(time.time() + 3500, usegmt=True)) <= 3500
    assert retry_after(formatdate(time.time() - 60, usegmt=True)) == 0.0
    for nonsense in ("soon", "", "nan", "-1", "1e999", None):
        assert retry_after(nonsense) == 0.0
    assert retry_after("1e300") == LONGEST_WAIT


def test_patience_waits_in_a_hurry_once_it_is_closing():
    patience = Patience()
    assert patience.wait(0.0) is True
    patience.closing.set()
    assert patience.wait(3600.0) is True  # returns, which is the test
    patience.over.set()
    assert patience.wait(3600.0) is False


def test_a_forked_child_finds_out_by_itself(make, caplog, drops):
    retrying = make()
    retrying(Failing(PassesError()), size=1)
    retrying.after_fork()
    attempt = Failing()
    assert retrying(attempt, size=1) is True
    assert attempt.calls == 1
    assert len([text for text in messages(caplog) if "again" in text]) == 0
