"""Whose run it is, who is logged in, and whether W&B can be reached."""

import logging

import pytest

import handlers
from handlers import CredentialsError, DeliveryError

STEP = ("training", "step")
KEY = "0123456789abcdef" * 3


@pytest.fixture
def begin(vendor, tmp_path):
    """Begin a run as a program of the user's does."""

    def begin(**options):
        quick = {"x_disable_stats": True, "x_disable_machine_info": True, "disable_git": True}
        settings = vendor.Settings(silent=True, console="off", **quick)
        return vendor.init(project="mine", dir=tmp_path, settings=settings, **options)

    return begin


def test_a_run_that_is_given_is_used_and_not_finished(attach, begin, bus, runs, values):
    run = begin()
    with attach(run=run) as attachment:
        assert attachment.handler.run is run
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    run.log({"mine": 2.0})
    run.finish()
    (found,) = runs()
    assert [values(row) for row in found.rows] == [
        {"training/loss": 1, "training/step": 1},
        {"mine": 2},
    ]
    assert found.exits == [0]


def test_the_active_run_is_used_and_not_finished(attach, begin, bus, runs, values, caplog):
    run = begin()
    with attach(name="other"):
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    first, second = [r.getMessage() for r in caplog.records if r.name == "telemetry"]
    assert first == (
        f"Handler 'wandb' logs to the active W&B run {run.id!r}; what was given for a new one is "
        "not used: project, name, mode, dir, settings."
    )
    assert second == (
        f"Handler 'wandb': flush_interval=0.5 does nothing for the W&B run {run.id!r}, which was "
        "begun without it. If the process is killed, its last 15 s can be lost. Begin the run with "
        "settings=wandb.Settings(x_transaction_log_flush_interval=0.25)."
    )
    run.log({"mine": 2.0})
    run.finish()
    (found,) = runs()
    assert [values(row) for row in found.rows] == [
        {"training/loss": 1, "training/step": 1},
        {"mine": 2},
    ]


def test_a_run_of_its_own_is_the_active_one_until_it_is_detached(attach, bus, vendor, runs, values):
    with attach() as attachment:
        assert vendor.run is attachment.handler.run
        vendor.log({"mine": 2.0})
    assert vendor.run is None
    (found,) = runs()
    assert [values(row) for row in found.rows] == [{"mine": 2}]
    assert found.exits == [0]


def test_a_run_that_somebody_finishes_detaches_the_handler(attach, begin, bus, ended, caplog):
    failures = []
    bus.attach("failures", ("telemetry", "handler", "failure"), lambda *e: failures.append(e[2]))
    run = begin()
    with attach(run=run) as attachment:
        run.finish()
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        ended(attachment)
    assert not attachment.active
    (failure,) = failures
    assert isinstance(failure["reason"], DeliveryError)
    assert str(failure["reason"]).startswith(
        f"Handler 'wandb' cannot log to the run {run.id!r}. If your program finishes it, detach "
        "the handler first: UsageError: Run"
    )
    assert "while it was being closed" not in caplog.text


def test_what_comes_after_the_end_is_counted(attach, bus, drops, runs):
    with attach() as attachment:
        late = attachment.handler
    late(STEP, {"loss": 1.0}, {"step": 1}, None)
    late.flush()
    late.idle()
    assert drops == [(1, {"handler_id": "wandb", "policy": "finished"})]
    assert runs()[0].rows == []


def test_what_comes_late_for_somebodys_run_is_logged(attach, begin, bus, runs, values):
    run = begin()
    with attach(run=run) as attachment:
        late = attachment.handler
    late(STEP, {"loss": 1.0}, {"step": 1}, None)
    run.finish()
    assert [values(row) for row in runs()[0].rows] == [{"training/loss": 1, "training/step": 1}]


def test_a_forked_child_leaves_the_run_alone(attach, bus, drops, runs, values, in_child):
    with attach() as attachment:
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})

        def child():
            bus.execute(STEP, {"loss": -1.0}, {"step": 2})
            attachment.flush()  # after it comes the announcement, which is none itself
            attachment.flush()
            attachment.detach()
            assert drops == [(1, {"handler_id": "wandb", "policy": "forked"})]

        in_child(child)
        bus.execute(STEP, {"loss": 3.0}, {"step": 3})
    (run,) = runs()
    assert [row["training/loss"] for row in run.rows] == [1, 3]
    assert run.exits == [0]
    assert drops == []


def test_without_a_key_nobody_is_asked_for_one(attach, online):
    with pytest.raises(CredentialsError) as caught:
        attach(mode=None)
    assert str(caught.value) == (
        f"Handler 'wandb' has no key for W&B at {online.url}. Set WANDB_API_KEY, run "
        "'wandb login', or write to disk only: mode='offline'."
    )


def test_rows_arrive_at_the_server(attach, bus, online, values):
    with attach(mode=None, api_key=KEY):
        for step in (2, 1):
            bus.execute(STEP, {"loss": step / 4}, {"step": step})
    assert [values(row) for row in online.rows] == [
        {"training/loss": 0.5, "training/step": 2},
        {"training/loss": 0.25, "training/step": 1},
    ]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_is_a_clear_error_without_the_key(attach, online, status):
    online.status = status
    with pytest.raises(CredentialsError) as caught:
        attach(mode="online", api_key=KEY)
    assert str(caught.value).startswith("Handler 'wandb': W&B refuses the run: CommError: ")
    assert str(caught.value).endswith(
        ". Check the key (WANDB_API_KEY, api_key=... or 'wandb login'), and that it may write to "
        "this entity and project."
    )
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_that_is_none_is_a_clear_error(attach, online):
    with pytest.raises(CredentialsError, match="API key must have 40") as caught:
        attach(mode="online", api_key="short-key-0")
    assert "short-key-0" not in str(caught.value)


@pytest.mark.parametrize("trouble", ["hangs", "fails", "refused"])
def test_a_server_that_is_not_there_leaves_the_run_on_disk(
    attach, bus, online, trouble, monkeypatch, written, wait_until, values, caplog
):
    online.hangs = trouble == "hangs"
    online.status = 500 if trouble == "fails" else 200
    if trouble == "refused":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with attach(mode="online", api_key=KEY, init_timeout=1.0):
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    warnings = [r for r in caplog.records if r.name == "telemetry"]
    assert [r.levelno for r in warnings] == [logging.WARNING]
    assert warnings[0].getMessage().startswith("Handler 'wandb' cannot reach W&B (")
    assert "wandb sync" in warnings[0].getMessage()
    assert KEY not in caplog.text
    (run,) = wait_until(lambda: [run for run in written() if run.exits])
    assert [values(row) for row in run.rows] == [{"training/loss": 1, "training/step": 1}]


def test_a_run_that_is_disabled_takes_everything(attach, bus):
    with attach(mode="disabled"):
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        bus.execute(("alert", "raised"), {"value": 1.0}, {"rule": "r"})


WRONG = [
    ({"project": 3}, TypeError, "project must be a string, got 3."),
    ({"api_key": 12345678}, TypeError, "api_key must be a string, got int."),
    (
        {"mode": "of-line"},
        ValueError,
        "mode must be one of ('online', 'offline', 'disabled'), got 'of-line'.",
    ),
    (
        {"resume": "no"},
        ValueError,
        "resume must be one of (True, False, 'allow', 'never', 'must', 'auto'), got 'no'.",
    ),
    (
        {"tags": "a"},
        TypeError,
        "tags must be a list of strings, got 'a'. Write tags=['baseline'].",
    ),
    ({"tags": 3}, TypeError, "tags must be a list of strings, got 3. Write tags=['baseline']."),
    (
        {"tags": None},
        TypeError,
        "tags must be a list of strings, got None. Write tags=['baseline'].",
    ),
    (
        {"dir": 3},
        TypeError,
        "dir must be a string or an os.PathLike, got 3 (int). Write dir='runs/a'.",
    ),
    (
        {"project": "a/b"},
        ValueError,
        "Invalid project name 'a/b': cannot contain characters '/,\\\\,#,?,%,:', found '/'",
    ),
    (
        {"ranks": "all", "run_id": "a"},
        ValueError,
        "with ranks='all' the ranks would write to one run, run_id='a'. Write {rank} in it.",
    ),
    (
        {"config": ["lr"]},
        TypeError,
        "config must be a mapping with strings as keys, got list. Write config={...}.",
    ),
    (
        {"flush_interval": 0},
        ValueError,
        "flush_interval must be a finite number of seconds above 0, got 0.",
    ),
    (
        {"init_timeout": "1"},
        TypeError,
        "init_timeout must be a number of seconds, got '1' (str).",
    ),
    ({"alerts": "yes"}, TypeError, "alerts must be True or False, got 'yes' (str)."),
    (
        {"run": "abc"},
        TypeError,
        "run must be a wandb.Run, got 'abc' (str). Write run=wandb.init(...).",
    ),
]


@pytest.mark.parametrize(("options", "error", "text"), WRONG)
def test_a_wrong_option_is_refused_before_anything_is_made(
    attach, options, error, text, tmp_path, bus
):
    with pytest.raises(error) as caught:
        attach(**options)
    assert str(caught.value) == f"Handler 'wandb': {text}"
    assert not (tmp_path / "wandb").exists()
    assert bus.list_handlers() == []


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"no_such_setting": 1}, "no_such_setting: Extra inputs are not permitted"),
        ({"api_key": f"{KEY}\n"}, "API key cannot start or end with whitespace"),
        ({"api_key": [KEY]}, "api_key: Input should be a valid string"),
    ],
)
def test_a_setting_that_is_wrong_is_refused(attach, settings, text):
    with pytest.raises(ValueError, match="settings are not those of") as caught:
        attach(settings=settings)
    assert str(caught.value) == (
        f"Handler 'wandb': settings are not those of wandb.Settings: {text}"
    )


def test_a_run_and_options_for_another_are_refused(attach, begin):
    run = begin()
    with pytest.raises(ValueError, match="Leave out either") as caught:
        attach(run=run, project="other", tags=["a"])
    assert str(caught.value) == (
        f"Handler 'wandb': run={run.id!r} was given, and options for a new run: project, tags. "
        "Leave out either."
    )


def test_a_directory_that_cannot_be_written_is_refused(attach, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write in") as caught:
        attach(dir=tmp_path / "file" / "runs")
    assert caught.value.strerror == (
        f"Handler 'wandb' cannot write in '{tmp_path}/file/runs': Not a directory. "
        "Give a directory that can be written: dir='runs'."
    )


def test_importing_the_handlers_imports_no_vendor(run_script):
    run_script("import sys, handlers, handlers.wandb\nassert 'wandb' not in sys.modules")


def test_a_missing_package_names_the_extra(bus, monkeypatch):
    import sys

    from telemetry import MissingExtraError

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError) as caught:
        handlers.attach("wandb", registry=bus)
    assert str(caught.value) == (
        "The handler 'wandb' needs the module 'wandb', which cannot be imported. "
        "Install it with: pip install 'trainbus[wandb]'"
    )
