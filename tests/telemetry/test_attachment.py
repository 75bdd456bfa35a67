import logging

import pytest

import telemetry

FAILURE = ("telemetry", "handler", "failure")


def test_it_knows_its_id_and_whether_it_is_attached(bus, recorder):
    attachment = bus.attach("h", ("a",), recorder)
    assert isinstance(attachment, telemetry.Attachment)
    assert attachment.id == "h"
    assert attachment.active is True
    assert repr(attachment) == "<Attachment 'h' active>"
    attachment.detach()
    assert attachment.active is False
    assert repr(attachment) == "<Attachment 'h' detached>"


def test_its_id_cannot_be_changed(bus, recorder):
    attachment = bus.attach("h", ("a",), recorder)
    with pytest.raises(AttributeError):
        attachment.id = "other"


@pytest.mark.parametrize("many", [False, True])
def test_leaving_it_as_a_context_manager_detaches(bus, recorder, many):
    attach = bus.attach_many if many else bus.attach
    with attach("h", [("a",)] if many else ("a",), recorder) as attachment:
        assert attachment.active
        bus.execute(("a",), {})
    bus.execute(("a",), {})
    assert len(recorder) == 1
    assert not attachment.active


def test_leaving_it_with_an_exception_detaches_and_lets_it_through(bus, recorder):
    with pytest.raises(KeyError, match="mine"), bus.attach("h", ("a",), recorder):
        raise KeyError("mine")
    assert bus.list_handlers() == []


def test_detaching_twice_or_after_detach_by_id_does_nothing(bus, recorder):
    attachment = bus.attach("h", ("a",), recorder)
    attachment.detach()
    attachment.detach()
    again = bus.attach("h", ("a",), recorder)
    bus.detach("h")
    again.detach()
    assert bus.list_handlers() == []


def test_detaching_after_an_automatic_detach_does_nothing(bus):
    with bus.attach("h", ("a",), lambda *_: 1 / 0) as attachment:
        bus.execute(("a",), {})
        assert not attachment.active
    attachment.detach()


def test_it_never_detaches_a_newcomer_with_the_same_id(bus, recorder):
    first = bus.attach("h", ("a",), recorder)
    bus.detach("h")
    second = bus.attach("h", ("a",), recorder)
    first.detach()
    assert not first.active
    assert second.active
    bus.execute(("a",), {})
    assert len(recorder) == 1


def test_fail_is_what_raising_would_have_been(bus, recorder, caplog):
    attachment = bus.attach("background", ("a",), lambda *_: None, "config")
    bus.attach("listener", FAILURE, recorder)
    attachment.fail(("a",), OSError("disk full"))
    assert not attachment.active
    (failure,) = recorder
    assert failure.metadata["event_name"] == ("a",)
    assert failure.metadata["handler_id"] == "background"
    assert failure.metadata["handler_config"] == "config"
    assert str(failure.metadata["reason"]) == "disk full"
    assert failure.metadata["stacktrace"] == []
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "Handler 'background' failed on event a and was detached: OSError('disk full')"
    ]


def test_fail_leaves_a_kept_handler_attached(bus, recorder):
    attachment = bus.attach("background", ("a",), lambda *_: None, on_failure="keep")
    bus.attach("listener", FAILURE, recorder)
    attachment.fail(("a",), OSError("busy"))
    assert attachment.active
    assert len(recorder) == 1


def test_fail_does_not_touch_a_newcomer_with_the_same_id(bus, recorder):
    first = bus.attach("h", ("a",), recorder)
    bus.detach("h")
    second = bus.attach("h", ("a",), recorder)
    first.fail(("a",), OSError())
    assert second.active
