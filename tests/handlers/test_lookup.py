import json

import pytest

import handlers
from telemetry import ShadowedPackageError

STEP = ("training", "step")
KNOWN = (
    "blinker, console, datadog, jsonl, memory, mlflow, opentelemetry, prometheus, redis, "
    "tensorboard, trackio, wandb, webhook"
)


def refused(error, text, *arguments, **options):
    with pytest.raises(error) as caught:
        handlers.attach(*arguments, **options)
    assert type(caught.value) is error
    assert str(caught.value) == text
    return caught.value


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    refused(
        ValueError,
        f"Unknown handler 'jsnl'. Known handlers: {KNOWN}. Did you mean 'jsonl'?",
        "jsnl",
    )
    refused(ValueError, f"Unknown handler 'xyz'. Known handlers: {KNOWN}.", "xyz")


def test_the_name_of_an_extra_comes_with_the_command_that_installs_it():
    # "torch" is an extra and no handler; for a sink that a later version has, this is what to do.
    refused(
        ValueError,
        f"Unknown handler 'torch'. Known handlers: {KNOWN}. This version has none for the extra "
        "'torch'; one that has installs it with: pip install -U 'trainbus[torch]'",
        "torch",
    )


def test_a_name_that_is_no_string():
    refused(
        TypeError,
        "Handler name must be a string, got 3 (int). "
        "For a function of your own, use telemetry.attach().",
        3,
    )


def test_a_handler_of_another_distribution(bus, gated):
    attachment = handlers.attach("gated", registry=bus, events=STEP)
    assert isinstance(attachment.handler, gated)
    site = attachment.handler.site
    assert (site.handler_id, site.registry, site.events, site.ranks) == (
        "gated",
        bus,
        (STEP,),
        "zero",
    )


def test_a_name_that_two_distributions_register(install):
    install("one", twice="one:create")
    install("two", twice="two:create")
    with pytest.raises(ValueError, match="twice") as caught:
        handlers.attach("twice")
    assert str(caught.value) in {
        "Handler name 'twice' is registered by several distributions: "
        f"{first} ({first}:create), {second} ({second}:create). Uninstall all but one of them."
        for first, second in (("one", "two"), ("two", "one"))
    }


def test_a_file_that_hides_the_module_of_a_handler(install, monkeypatch, tmp_path):
    install("theirs", hidden="hidden_sinks.sub:create", lost="hidden_sinks:create")
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "hidden_sinks.py").write_text("")
    for name, value in (("hidden", "hidden_sinks.sub:create"), ("lost", "hidden_sinks:create")):
        refused(
            ShadowedPackageError,
            f"Handler {name!r} is {value} of the distribution theirs, but it is not in what was "
            f"imported: <module 'hidden_sinks' from '{tmp_path}/here/hidden_sinks.py'>. A file or "
            "folder of that name hides it: rename that, or start Python from another directory.",
            name,
        )


def does_not_exist(name, value, found):
    return (
        f"Handler {name!r} cannot be loaded: distribution 'adv' registers {value}, which does not "
        f"exist ({found}). Update it: pip install -U adv"
    )


def test_an_entry_that_does_not_exist_is_not_said_to_be_hidden(install, tmp_path):
    values = {"a": "advmod:nonexistent", "b": "advmod.sub:create"}
    site = install("adv", **values, c="no_such_module:create")
    (site / "advmod.py").write_text("")
    found = f"found <module 'advmod' from '{site}/advmod.py'>"
    for name, value in values.items():
        refused(ImportError, does_not_exist(name, value, found), name)
    missing = "no module named 'no_such_module'"
    refused(ImportError, does_not_exist("c", "no_such_module:create", missing), "c")


@pytest.mark.parametrize("editable", [True, False])
def test_an_editable_install_lies_in_its_project(install, monkeypatch, tmp_path, editable):
    site = install("adv", a="editable_advmod:nonexistent")
    project = tmp_path / "my project"
    project.mkdir()
    (project / "editable_advmod.py").write_text("")
    monkeypatch.syspath_prepend(str(project))
    origin = {"url": project.as_uri(), "dir_info": {"editable": editable}}
    (site / "adv-1.0.dist-info" / "direct_url.json").write_text(json.dumps(origin))
    with pytest.raises(ImportError) as caught:
        handlers.attach("a")
    assert type(caught.value) is (ImportError if editable else ShadowedPackageError)


def test_a_handler_whose_own_import_is_missing_says_so(install, tmp_path):
    install("theirs", needy="needy_sinks:create")
    (tmp_path / "site" / "needy_sinks.py").write_text("import a_module_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="'a_module_that_is_not_there'"):
        handlers.attach("needy")


def test_an_entry_that_is_no_function(install, tmp_path):
    install("theirs", wrong="wrong_sinks:create")
    (tmp_path / "site" / "wrong_sinks.py").write_text("create = 3")
    refused(
        TypeError,
        "Handler 'wrong' of the distribution theirs is wrong_sinks:create, which is 3. "
        "It must be a function create(site, *, option, ...).",
        "wrong",
    )
