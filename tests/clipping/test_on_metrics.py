import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

FAILURE = ("telemetry", "handler", "failure")
RECORD = {
    "algo": "autoclip",
    "key": ("global",),
    "scope": "global",
    "grad_norm": 3.0,
    "threshold": 2.0,
    "scale": pytest.approx(2 / 3),
    "clipped": True,
}


def run(kit, clipper, norms, on_metrics):
    model = kit.model(np.zeros(1))
    optimizer = kit.sgd(model, 1.0)
    with clipping.clip_context(model, optimizer, clipper, on_metrics=on_metrics):
        for norm in norms:
            kit.set_grads(model, [norm])
            optimizer.step()


def test_record_has_the_documented_fields(kit, percentile):
    records = []
    run(kit, percentile(50.0), [1.0, 3.0], records.append)
    assert len(records) == 2
    assert records[1] == RECORD
    assert [type(value) for value in records[1].values()] == [
        str,
        tuple,
        str,
        float,
        float,
        float,
        bool,
    ]


def test_apply_and_step_take_it_too(kit, percentile):
    clipper, records = percentile(50.0), []
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [1.0])
    clipping.apply(model, clipper, records.append)
    kit.set_grads(model, [3.0])
    clipping.step(model, kit.sgd(model, 1.0), clipper, on_metrics=records.append)
    assert records[1] == RECORD


def test_it_hears_its_own_clipper_only(kit, percentile):
    mine, others = [], []
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [1.0])
    optimizer = kit.sgd(model, 1.0)
    with clipping.clip_context(model, optimizer, percentile(), on_metrics=mine.append):
        clipping.apply(model, percentile(), others.append)
        optimizer.step()
    assert len(mine) == len(others) == 1


def test_it_does_not_make_the_bus_look_busy(kit, percentile):
    def look(_record):
        assert telemetry.list_handlers() == []
        assert not telemetry.enabled(("smartclip", "clip", "group"))
        looked.append(True)

    looked = []
    run(kit, percentile(), [1.0], look)
    assert looked == [True]


def test_ambient_metadata_stays_out_of_the_record(kit, percentile):
    records = []
    with telemetry.context(step=3, key="other", run_id="r"):
        run(kit, percentile(), [1.0], records.append)
    assert set(records[0]) == set(RECORD)
    assert records[0]["key"] == ("global",)


def test_callback_that_raises_is_announced_and_not_called_again(kit, percentile, caplog):
    calls = []

    def broken(record):
        calls.append(record)
        raise KeyError("no such chart")

    clipper = percentile(50.0)
    with capture(FAILURE) as events:
        run(kit, clipper, [1.0, 3.0, 5.0], broken)
    assert len(calls) == 1
    assert clipper.state_dict()["steps"] == 3
    (failure,) = events
    assert failure.metadata["event_name"] == ("smartclip", "clip", "group")
    assert failure.metadata["handler_id"] == "clipping.on_metrics"
    assert failure.metadata["handler_config"] is broken
    assert failure.metadata["kind"] == "error"
    assert repr(failure.metadata["reason"]) == "KeyError('no such chart')"
    assert failure.metadata["stacktrace"][-1].name == "broken"
    assert set(failure.measurements) == {"monotonic_time", "system_time"}
    (logged,) = [r for r in caplog.records if r.name == "telemetry"]
    assert logged.levelname == "ERROR"
    caplog.clear()


def test_next_context_calls_it_again(kit, percentile):
    calls = []

    def broken(_record):
        calls.append(1)
        raise ValueError

    for _ in range(2):
        run(kit, percentile(), [1.0, 1.0], broken)
    assert len(calls) == 2


def test_handler_that_fails_on_the_announcement_harms_nothing(kit, percentile):
    def broken(*_):
        raise ValueError

    telemetry.attach("alarm", FAILURE, broken)
    clipper = percentile()
    run(kit, clipper, [1.0, 1.0], broken)
    assert clipper.state_dict()["steps"] == 2
    assert telemetry.list_handlers() == []


def test_interrupt_passes_through(kit, percentile):
    def interrupt(_record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(kit, percentile(), [1.0], interrupt)


def test_what_cannot_be_called_is_refused(kit):
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [1.0])
    with pytest.raises(TypeError) as refused:
        clipping.apply(model, clipping.AutoClip(), on_metrics=[])
    assert str(refused.value) == (
        "on_metrics must be a function of one record, got [] (list). "
        "Leave it out to have no callback."
    )
