import importlib
import io
import sys
import threading

import pytest

import handlers

STEP = ("training", "step")


@pytest.fixture
def printed(bus):
    """Attach a console that writes into a string."""

    def printed(**options):
        stream = io.StringIO()
        handlers.attach("console", stream=stream, registry=bus, **options)
        return stream

    return printed


def test_plain_lines_where_it_is_no_terminal(bus, printed):
    stream = printed()
    bus.execute(STEP, {"loss": 2.5432, "lr": 2e-4}, {"step": 1, "total_steps": 1000})
    with bus.span(("workflow", "run"), {"workflow": "MyWorkflow"}):
        pass
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["Step 1/1000 | loss=2.5432 | lr=0.0002", "Workflow started: MyWorkflow"]
    assert lines[2].startswith("Workflow completed in ")
    assert "\x1b" not in stream.getvalue()


def test_the_default_stream_is_standard_output_at_the_time_of_each_line(bus, capsys, monkeypatch):
    handlers.attach("console", registry=bus)
    bus.execute(STEP, {}, {"step": 1})
    assert capsys.readouterr().out == "Step 1\n"
    other = io.StringIO()
    monkeypatch.setattr(sys, "stdout", other)
    bus.execute(STEP, {}, {"step": 2})
    monkeypatch.setattr(sys, "stdout", None)
    bus.execute(STEP, {}, {"step": 3})
    monkeypatch.undo()
    assert other.getvalue() == "Step 2\n"
    assert capsys.readouterr().out == ""


DETAIL = [
    ("smartclip", "clip", "start"),
    ("smartclip", "clip", "stop"),
    ("smartclip", "clip", "group"),
    ("custom_loss", "start"),
    ("custom_loss", "stop"),
    ("regularizer", "compute", "start"),
    ("regularizer", "compute", "stop"),
    ("dataset", "batch"),
    ("performance", "sample"),
    ("performance", "operation", "start"),
    ("performance", "operation", "stop"),
]
TROUBLE = [
    ("smartclip", "clip", "nonfinite"),
    ("smartclip", "clip", "exception"),
    ("custom_loss", "exception"),
    ("regularizer", "compute", "exception"),
    ("performance", "operation", "exception"),
    ("my", "own"),
]


def test_what_comes_many_times_a_step_is_left_out_unless_it_was_chosen(bus, printed):
    everything, chosen = printed(), printed(id="chosen", events=[*DETAIL, *TROUBLE])
    for event in DETAIL:
        bus.execute(event, {"x": 1})
    assert everything.getvalue() == ""
    assert len(chosen.getvalue().splitlines()) == len(DETAIL)
    for event in TROUBLE:
        bus.execute(event, {"x": 1})
    assert len(everything.getvalue().splitlines()) == len(TROUBLE)


def test_lines_of_threads_do_not_mix(bus, printed):
    stream = printed()
    threads = [
        threading.Thread(target=lambda: [bus.execute(STEP, {}, {"step": 7}) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.getvalue() == "Step 7\n" * 800


def test_a_stream_of_another_encoding_gets_what_it_can_take(bus):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    handlers.attach("console", stream=stream, registry=bus)
    bus.execute(STEP, {"größe": "漢"}, {"step": 1})
    assert raw.getvalue() == b"Step 1 | gr\\xf6\\xdfe=\\u6f22\n"


def test_each_line_is_flushed(bus, tmp_path):
    with (tmp_path / "log").open("w") as stream:
        handlers.attach("console", stream=stream, registry=bus)
        bus.execute(STEP, {}, {"step": 1})
        assert (tmp_path / "log").read_text() == "Step 1\n"


def test_a_stream_that_is_closed_is_a_failure_of_the_handler(bus, caplog):
    stream = io.StringIO()
    attachment = handlers.attach("console", stream=stream, registry=bus)
    stream.close()
    bus.execute(STEP, {})
    assert not attachment.active
    assert "I/O operation on closed file" in caplog.text


def test_options_that_are_refused(bus):
    with pytest.raises(TypeError) as caught:
        handlers.attach("console", stream=3, registry=bus)
    assert str(caught.value) == (
        "Handler 'console': stream must be a text stream with a write method, got 3 (int). "
        "Write stream=sys.stderr."
    )
    with pytest.raises(TypeError) as caught:
        handlers.attach("console", progress="yes", registry=bus)
    assert str(caught.value) == (
        "Handler 'console': progress must be None, True or False, got 'yes' (str)."
    )


def test_device_values_do_not_reorder_the_lines(bus, printed):
    torch = importlib.import_module("torch")

    class OnDevice(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda")

    stream = printed()
    bus.execute(STEP, {"loss": torch.tensor(0.25).as_subclass(OnDevice)}, {"step": 1})
    bus.execute(STEP, {"loss": 0.5}, {"step": 2})
    bus.detach("console")
    assert stream.getvalue() == "Step 1 | loss=0.25\nStep 2 | loss=0.5\n"


def test_a_forked_child_does_not_draw_on_another_stream_either(bus, monkeypatch):
    attachment = handlers.attach("console", progress=True, registry=bus)
    attachment.handler.after_fork()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    bus.execute(STEP, {}, {"step": 1, "total_steps": 10})
    monkeypatch.undo()
    assert stream.getvalue() == "Step 1/10\n"


def test_progress_true_takes_any_stream_for_a_terminal(bus, printed):
    stream = printed(progress=True)
    bus.execute(STEP, {"loss": 0.5}, {"step": 1, "total_steps": 10})
    assert "━" in stream.getvalue()
    assert "1/10" in stream.getvalue()


def test_a_step_that_no_bar_can_show_is_a_line(bus, printed):
    stream = printed(progress=True)
    bus.execute(STEP, {}, {"step": 10**400, "total_steps": 10**401})
    bus.execute(STEP, {}, {"step": 1, "total_steps": float("inf")})
    assert stream.getvalue() == f"Step 1{'0' * 298}…/1{'0' * 298}…\nStep 1/inf\n"
    assert bus.list_handlers()
