import threading
import time

from handlers.event_queue import BATCH, PACE, EventQueue
from handlers.records import TimedEvent


def event(number):
    return TimedEvent(number, ("training", "step"), {}, {})


def overflow(number):
    return TimedEvent(number, ("telemetry", "handler", "overflow"), {"dropped": 1}, {})


def taken(queue):
    return [entry.time_ns for entry in queue.take()]


def test_a_batch_is_bounded():
    queue = EventQueue(10 * BATCH, "drop_oldest")
    for number in range(BATCH + 1):
        assert queue.put(event(number), may_wait=False) == "accepted"
    assert taken(queue) == list(range(BATCH))
    assert len(queue) == BATCH + 1
    assert queue.discard() == BATCH + 1
    assert queue.done() == 0


def test_a_queue_that_is_closed_gives_what_it_has_and_then_none():
    queue = EventQueue(4, "drop_oldest")
    queue.put(event(1), may_wait=False)
    queue.close()
    assert queue.put(event(2), may_wait=False) == "accepted"  # the worker is still there
    assert taken(queue) == [1, 2]
    assert queue.take() is None
    assert queue.put(event(3), may_wait=False) == "closed"
    assert queue.request_flush().done()


def test_a_flush_is_due_when_all_before_it_is_done():
    queue = EventQueue(4, "drop_oldest")
    queue.put(event(1), may_wait=False)
    future = queue.request_flush()
    queue.put(event(2), may_wait=False)
    assert queue.due_flushes() == []
    assert taken(queue) == [1, 2]
    assert queue.due_flushes() == []
    queue.done()
    assert queue.due_flushes() == [future]
    assert queue.due_flushes() == []


def test_what_was_dropped_does_not_stand_in_for_what_a_flush_waits_for():
    queue = EventQueue(2, "drop_oldest")
    for number in (1, 2):
        queue.put(event(number), may_wait=False)
    assert taken(queue) == [1, 2]
    for number in (3, 4):
        queue.put(event(number), may_wait=False)
    future = queue.request_flush()
    assert queue.put(event(5), may_wait=False) == "dropped"  # 3, of which the flush hears no more
    queue.done(2)
    assert queue.due_flushes() == []
    assert [entry.time_ns for entry in queue.take_now()] == [4, 5]
    queue.done()
    assert queue.due_flushes() == [future]


def test_what_is_done_together_is_ticked_off_together():
    queue = EventQueue(10, "drop_oldest")
    for number in range(5):
        queue.put(event(number), may_wait=False)
    assert taken(queue) == [0, 1, 2, 3, 4]
    assert queue.done(3) == 3
    assert len(queue) == 2
    assert queue.done(3) == 2
    assert not queue.delivering


def test_an_announcement_that_is_lost_does_not_count():
    queue = EventQueue(1, "drop_oldest")
    assert queue.put(overflow(1), may_wait=False) == "accepted"
    assert queue.put(event(2), may_wait=False) == "accepted"  # for it an announcement went
    assert queue.put(overflow(3), may_wait=False) == "dropped"  # for this one an event
    newest = EventQueue(1, "drop_newest")
    assert newest.put(event(1), may_wait=False) == "accepted"
    assert newest.put(overflow(2), may_wait=False) == "accepted"
    assert newest.put(event(3), may_wait=False) == "dropped"
    assert taken(newest) == [1]


def test_announcements_that_are_given_up_do_not_count():
    queue = EventQueue(10, "drop_oldest")
    for number in range(3):
        queue.put(event(number), may_wait=False)
        queue.put(overflow(number), may_wait=False)
    assert len(queue.take()) == 6
    queue.put(overflow(7), may_wait=False)
    queue.put(event(8), may_wait=False)
    assert queue.done(2) == 2
    assert queue.discard() == 3


def test_while_entries_keep_coming_the_worker_comes_at_its_own_pace():
    queue = EventQueue(1000, "drop_oldest")
    batches = []

    def work():
        while (batch := queue.take()) is not None:
            batches.append(batch)
            queue.done(len(batch))

    worker = threading.Thread(target=work)
    worker.start()
    began = time.monotonic()
    for number in range(60):
        queue.put(number, may_wait=False)
        time.sleep(0.01)
    queue.close()
    worker.join(60)
    # One after the first entry, one for each pace since, and one for the end.
    assert len(batches) <= 2 + (time.monotonic() - began) / PACE
    assert [number for batch in batches for number in batch] == list(range(60))


def test_nobody_waits_for_the_pace_who_waits_for_a_flush():
    queue = EventQueue(1000, "block")
    taken = []

    def work():
        while (batch := queue.take()) is not None:
            taken.append(batch)
            queue.done(len(batch))
            for future in queue.due_flushes():
                future.set_result(True)

    worker = threading.Thread(target=work)
    worker.start()
    began = time.monotonic()
    for number in range(100):
        queue.put(number, may_wait=False)
        assert queue.request_flush().result(60) is True
    assert time.monotonic() - began < 100 * PACE
    queue.close()
    worker.join(60)
    assert [number for batch in taken for number in batch] == list(range(100))
