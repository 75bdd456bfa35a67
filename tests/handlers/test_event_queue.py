from handlers.event_queue import BATCH, EventQueue


def test_a_batch_is_bounded():
    queue = EventQueue(10 * BATCH, "drop_oldest")
    for number in range(BATCH + 1):
        assert queue.put(number, may_wait=False) == "accepted"
    assert queue.take() == list(range(BATCH))
    assert len(queue) == BATCH + 1
    assert queue.discard() == BATCH + 1
    assert queue.done() is False


def test_a_queue_that_is_closed_gives_what_it_has_and_then_none():
    queue = EventQueue(4, "drop_oldest")
    queue.put("a", may_wait=False)
    queue.close()
    assert queue.put("b", may_wait=False) == "accepted"  # the worker is still there
    assert queue.take() == ["a", "b"]
    assert queue.take() is None
    assert queue.put("c", may_wait=False) == "closed"
    assert queue.request_flush().done()


def test_a_flush_is_due_when_all_before_it_is_done():
    queue = EventQueue(4, "drop_oldest")
    queue.put("a", may_wait=False)
    future = queue.request_flush()
    queue.put("b", may_wait=False)
    assert queue.due_flushes() == []
    assert queue.take() == ["a", "b"]
    assert queue.due_flushes() == []
    queue.done()
    assert queue.due_flushes() == [future]
    assert queue.due_flushes() == []
