"""What the handler refuses when it is attached, and how it says so."""

import pytest

import handlers


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"experiment": 3},
            TypeError,
            "Handler 'mlflow': experiment must be a string, got 3 (int).",
        ),
        (
            {"run_name": ""},
            ValueError,
            "Handler 'mlflow': run_name must not be empty. Leave it out instead.",
        ),
        (
            {"run_id": "../x"},
            ValueError,
            (
                "Handler 'mlflow': run_id '../x' is no id of a run. Take it from run.info.run_id, "
                "or from the page of the run."
            ),
        ),
        (
            {"run_id": "0" * 32, "run_name": "first"},
            ValueError,
            (
                "Handler 'mlflow': run_id names a run that exists, so run_name cannot be given "
                "with it, got 'first'. Leave one of them out."
            ),
        ),
        (
            {"tags": ["a"]},
            TypeError,
            (
                "Handler 'mlflow': tags must be a mapping with strings as keys, got ['a'] (list). "
                "Write tags={'stage': 'pretraining'}."
            ),
        ),
        (
            {"tags": {"a[b]": 1}},
            ValueError,
            (
                "Handler 'mlflow': MLflow refuses the tag 'a[b]'. Allowed: letters, digits, spaces "
                "and _-.:/, at most 250 of them."
            ),
        ),
        (
            {"tracking_uri": "sqlite:///:memory:"},
            ValueError,
            (
                "Handler 'mlflow': tracking_uri 'sqlite:///:memory:' names no file, so the run "
                "would be gone with the process. Write tracking_uri='sqlite:///mlflow.db'."
            ),
        ),
        (
            {"tracking_uri": "postgresql://me:secret1@host/db"},
            ValueError,
            (
                "Handler 'mlflow': tracking_uri 'postgresql://***@host/db' is neither a server "
                "nor an SQLite file. Allowed: 'http://host:5000', 'https://...', "
                "'sqlite:///mlflow.db'; for another database, start `mlflow server "
                "--backend-store-uri ...` in front of it."
            ),
        ),
    ],
)
def test_a_mistake_fails_when_it_is_attached(bus, options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        handlers.attach("mlflow", registry=bus, **{"tracking_uri": "sqlite:///x.db", **options})
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []
    assert bus.list_handlers() == []


def test_a_directory_that_cannot_be_made_fails_when_it_is_attached(bus, tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "runs.db"
    with pytest.raises(OSError, match="cannot write the database") as caught:
        handlers.attach("mlflow", tracking_uri=f"sqlite:///{path}", registry=bus)
    assert caught.value.strerror == (
        f"Handler 'mlflow' cannot write the database {str(path)!r}: File exists. "
        "Give a file that can be written: tracking_uri='sqlite:///mlflow.db'."
    )


def test_a_file_that_is_no_database_fails_and_stays_as_it_is(bus, tmp_path):
    path = tmp_path / "notes.db"
    path.write_bytes(b"not a database, but somebody's notes" * 100)
    with pytest.raises(OSError, match="file is not a database"):
        handlers.attach("mlflow", tracking_uri=f"sqlite:///{path}", registry=bus)
    assert path.read_bytes() == b"not a database, but somebody's notes" * 100


def test_a_run_that_does_not_exist_fails_when_it_is_attached(bus, tmp_path):
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    with pytest.raises(handlers.DeliveryError, match=f"Run with id={'0' * 32} not found"):
        handlers.attach("mlflow", tracking_uri=uri, run_id="0" * 32, registry=bus)
    assert bus.list_handlers() == []


@pytest.mark.parametrize("uri", ["http://host:99999", "http://", "https://:5000"])
def test_a_malformed_url_fails_when_it_is_attached(bus, uri):
    with pytest.raises(ValueError, match="is malformed"):
        handlers.attach("mlflow", tracking_uri=uri, registry=bus)


def test_without_the_package_the_error_says_how_to_get_it(run_script):
    run_script(
        """
import sys
sys.modules["mlflow"] = None
import handlers, telemetry
try:
    handlers.attach("mlflow")
except telemetry.MissingExtraError as error:
    assert "pip install 'trainbus[mlflow]'" in str(error), error
    assert isinstance(error.__cause__, ImportError)
else:
    raise AssertionError
"""
    )


def test_importing_the_sink_imports_no_vendor(run_script):
    run_script("import sys, handlers.mlflow; assert 'mlflow' not in sys.modules")


TOO_MUCH = {
    "sqlite:///a.db?timeout=5": (
        "tracking_uri 'sqlite:///a.db?timeout=5' has options behind '?', which are not used. "
        "Write 'sqlite:///a.db'."
    ),
    "http://127.0.0.1:9/?token=Sekr3tPassw": (
        "tracking_uri 'http://127.0.0.1:9/?token=***' has a query, which MLflow does not "
        "expect. Give credentials by MLFLOW_TRACKING_TOKEN."
    ),
    "http://127.0.0.1:99999": (
        "tracking_uri 'http://127.0.0.1:99999' is malformed. It must begin with http:// or "
        "https:// and name a host, with a port from 1 to 65535 if any, such as "
        "'http://host:5000'."
    ),
}


@pytest.mark.parametrize("uri", TOO_MUCH)
def test_an_address_with_more_than_a_place_is_refused(bus, tmp_path, monkeypatch, uri):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="tracking_uri") as caught:
        handlers.attach("mlflow", tracking_uri=uri, registry=bus)
    assert str(caught.value) == f"Handler 'mlflow': {TOO_MUCH[uri]}"
    assert not (tmp_path / "a.db").exists()
