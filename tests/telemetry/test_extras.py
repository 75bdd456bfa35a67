import pytest

from telemetry import MissingExtraError
from telemetry.extras import import_extra


def test_what_is_installed_is_imported():
    import json

    assert import_extra("json", extra="demo", feature="telemetry demo") is json


def test_a_missing_extra_is_named_with_the_command_that_brings_it():
    with pytest.raises(MissingExtraError) as caught:
        import_extra("no_such_module", extra="wandb", feature="handlers.attach('wandb')")
    assert isinstance(caught.value, ImportError)
    assert str(caught.value) == (
        "handlers.attach('wandb') needs the module 'no_such_module', which cannot be imported. "
        "Install it with: pip install 'trainbus[wandb]'"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_broken_installation_stays_visible(tmp_path, monkeypatch):
    (tmp_path / "broken_vendor.py").write_text("from json import no_such_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError) as caught:
        import_extra("broken_vendor", extra="wandb", feature="it")
    assert "no_such_name" in str(caught.value.__cause__)
