"""What the handler refuses before anything is written."""

import os
import sys

import pytest

import handlers


@pytest.fixture
def attach(bus):
    def attach(**options):
        own = {"project": "options", "name": "a"}
        return handlers.attach("trackio", registry=bus, **own | options)

    return attach


WRONG = [
    ({"project": 3}, TypeError, "project must be a string, got 3 (int)."),
    ({"project": ""}, ValueError, "project must not be empty. Write project='demo'."),
    (
        {"config": ["lr"]},
        TypeError,
        "config must be a mapping with strings as keys, got list. Write config={...}.",
    ),
    (
        {"config": {"_lr": 1}},
        ValueError,
        "config has '_lr', but names that begin with '_' are trackio's own. Write 'lr'.",
    ),
    (
        {"resume": "no"},
        ValueError,
        "resume must be one of ('never', 'allow', 'must'), got 'no'.",
    ),
    ({"alerts": 1}, TypeError, "alerts must be True or False, got 1 (int)."),
    (
        {"flush_interval": "1"},
        TypeError,
        "flush_interval must be a number of seconds, got '1' (str).",
    ),
    (
        {"flush_interval": 0},
        ValueError,
        "flush_interval must be a finite number of seconds above 0, got 0.",
    ),
]


@pytest.mark.parametrize(("options", "error", "text"), WRONG)
def test_a_wrong_option_is_refused(attach, options, error, text, bus):
    with pytest.raises(error) as caught:
        attach(**options)
    assert str(caught.value) == f"Handler 'trackio': {text}"
    assert bus.list_handlers() == []


def test_a_run_that_must_be_there_and_is_not_is_refused(attach):
    with pytest.raises(ValueError, match="there is no run") as caught:
        attach(resume="must")
    assert str(caught.value) == (
        "Handler 'trackio': there is no run 'a' to resume in the project 'options'. "
        "Begin one with resume='allow'."
    )


def test_a_name_that_trackio_reserves_is_refused(attach):
    with pytest.raises(ValueError, match="Handler 'trackio': Project name 'registry-a'"):
        attach(project="registry-a")


def test_a_second_directory_is_refused(attach, tmp_path):
    with pytest.raises(ValueError, match="since it was imported") as caught:
        attach(dir=tmp_path)
    assert str(caught.value) == (
        f"Handler 'trackio': dir is '{tmp_path}', but trackio writes to "
        f"'{os.environ['TRACKIO_DIR']}' since it was imported. Leave dir out, or set TRACKIO_DIR "
        "before."
    )


def test_a_directory_for_no_database_is_refused(attach, monkeypatch):
    monkeypatch.setenv("TRACKIO_STORAGE_MODE", "jsonl")
    with pytest.raises(ValueError, match="is no place for a database"):
        attach()


def test_a_directory_that_cannot_be_written_is_refused(run_script, tmp_path):
    (tmp_path / "file").write_text("")
    program = (
        "import handlers, sys\n"
        "try:\n"
        "    handlers.attach('trackio', project='demo', dir=sys.argv[1])\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    done = run_script(program, tmp_path / "file" / "runs")
    assert done.stdout == (
        f"Handler 'trackio' cannot write in '{tmp_path}/file/runs': Not a directory. "
        "Give a directory that can be written: dir='runs', or TRACKIO_DIR.\n"
    )


def test_importing_the_handlers_imports_no_vendor(run_script):
    run_script("import sys, handlers, handlers.trackio\nassert 'trackio' not in sys.modules")


def test_a_missing_package_names_the_extra(bus, monkeypatch):
    from telemetry import MissingExtraError

    monkeypatch.setitem(sys.modules, "trackio.sqlite_storage", None)
    with pytest.raises(MissingExtraError) as caught:
        handlers.attach("trackio", project="demo", registry=bus)
    assert str(caught.value) == (
        "The handler 'trackio' needs the module 'trackio.sqlite_storage', which cannot be "
        "imported. Install it with: pip install 'trainbus[trackio]'"
    )
