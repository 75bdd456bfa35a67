"""`--option KEY=VALUE`: a text becomes what the option takes, and secrets are not echoed."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import click
import pytest

from telemetry.cli import commands
from telemetry.cli.options.handler_options import complete_handler, complete_option, read_options
from telemetry.cli.options.values import parse, resolve
from telemetry.cli.output.log import log_lines

NO_TEXT = "Allowed: a Python object, which a command line cannot give."


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("8125", int, 8125),
        ("8125", int | str, 8125),
        ("agent", int | str, "agent"),
        ("1e-3", float, 0.001),
        ("3", float, 3.0),
        ("true", bool, True),
        ("OFF", bool | None, False),
        ("none", bool | None, None),
        ("null", str | None, None),
        ("none", str, "none"),
        ("offline", Literal["online", "offline"] | None, "offline"),
        ("allow", bool | Literal["allow", "never"] | None, "allow"),
        ("yes", bool | Literal["allow", "never"] | None, True),
        ("runs/a=b", str | os.PathLike[str], "runs/a=b"),
        ("", str, ""),
        ('["a", 1]', list[Any], ["a", 1]),
        ("env:a, team:b", Sequence[str], ["env:a", "team:b"]),
        ("a", Iterable[str] | None, ["a"]),
        ('{"a": 1}', Mapping[str, Any] | None, {"a": 1}),
        ("5", Any, 5),
        ("text", Any, "text"),
        ('{"a": [true]}', object, {"a": [True]}),
    ],
)
def test_a_text_is_read_as_what_the_option_takes(text, kind, value):
    found = parse(text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("abc", int, "Allowed: an integer."),
        ("1.5", int | None, "Allowed: an integer, none."),
        ("maybe", bool, "Allowed: true or false."),
        ("on", Literal["online", "offline"], "Allowed: 'online', 'offline'."),
        ("[1", list[str], "Allowed: JSON for a list."),
        ('["a"]', Mapping[str, str], "Allowed: JSON for an object."),
        ("x", Callable[..., Any], NO_TEXT),
        ("x", Iterable[click.Option], NO_TEXT),
    ],
)
def test_what_the_option_does_not_take_is_refused(text, kind, message):
    with pytest.raises(ValueError, match="Allowed") as caught:
        parse(text, kind)
    assert str(caught.value) == message


def test_a_value_can_be_in_a_file_or_a_variable(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("0123\n")
    monkeypatch.setenv("KEY", "4567")
    assert resolve(f"@{tmp_path / 'key'}") == ("0123", True)
    assert resolve("env:KEY") == ("4567", True)
    assert resolve("@@channel") == ("@channel", False)
    assert resolve("plain") == ("plain", False)
    assert resolve("env:production", list[str]) == ("env:production", False)
    assert resolve("env:production", Sequence[str] | None) == ("env:production", False)


def test_a_file_or_a_variable_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="variable") as caught:
        resolve("env:NO_SUCH_VARIABLE")
    assert str(caught.value) == "The environment variable 'NO_SUCH_VARIABLE' is not set."
    with pytest.raises(ValueError, match="file") as caught:
        resolve("@/no/such/file")
    with pytest.raises(ValueError, match=r"^The file '~no-such-user/key' cannot be read: No such"):
        resolve("@~no-such-user/key")
    assert str(caught.value) == (
        "The file '/no/such/file' cannot be read: No such file or directory."
    )
    (tmp_path / "key").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="it is not UTF-8"):
        resolve(f"@{tmp_path / 'key'}")


def create(
    _site,
    *,
    url: str,
    port: int = 8125,
    tags: Sequence[str] = (),
    token: Literal["a", "b"] | None = None,
    headers: Mapping[str, str] | None = None,
) -> object:
    return object()


def test_options_of_a_factory(monkeypatch):
    monkeypatch.setenv("PLACE", "redis://h")
    given = ["url=env:PLACE", "port=9", "tags=env:prod,team:a"]
    assert read_options("mine", create, given) == {
        "url": "redis://h",
        "port": 9,
        "tags": ["env:prod", "team:a"],
    }
    assert read_options("mine", create, [("url", "env:PLACE"), ("port", 9), ("tags", ["x"])]) == {
        "url": "redis://h",
        "port": 9,
        "tags": ["x"],
    }


def test_a_factory_without_types_gets_what_json_makes_of_a_text():
    def loose(_site, *, size=1, **more):
        return None

    given = ["size=2", "name=x", 'deep={"a": 1}']
    assert read_options("loose", loose, given) == {"size": 2, "name": "x", "deep": {"a": 1}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["secret-word"], "It must be KEY=VALUE, such as path=runs/metrics.jsonl."),
        (["=secret-word"], "It must be KEY=VALUE, such as path=runs/metrics.jsonl."),
        (
            ["prot=1"],
            (
                "Handler 'mine' has no option 'prot'. Its options: url, port, tags, token, "
                "headers; those of all handlers: every. Did you mean 'port'?"
            ),
        ),
        (["url=a", "url=b"], "'url' is given twice for the handler 'mine'."),
        (["port=1"], "Handler 'mine' needs the option 'url'. Write --option url=VALUE."),
        (["port=abc"], "port: 'abc' cannot be used. Allowed: an integer."),
        (
            ["port=env:SECRET"],
            "port: env:SECRET cannot be used. Allowed: an integer.",
        ),
        (
            ['headers={"Authorization": "secret-word"'],
            "headers: what was given cannot be used. Allowed: JSON for an object, none.",
        ),
        (["token=c"], "token: 'c' cannot be used. Allowed: 'a', 'b', none."),
        (
            ["token=env:NO_SUCH_VARIABLE"],
            "token: The environment variable 'NO_SUCH_VARIABLE' is not set.",
        ),
    ],
)
def test_a_bad_option_is_refused_and_no_secret_is_shown(given, message, monkeypatch):
    monkeypatch.setenv("SECRET", "secret-word")
    with pytest.raises(click.BadParameter) as caught:
        read_options("mine", create, given, {"every": int})
    assert caught.value.message == message


def completed(parameter, incomplete, **params):
    context = click.Context(commands)
    context.params = params
    return [item.value for item in parameter(context, None, incomplete)]


def test_names_and_options_are_completed():
    assert completed(complete_handler, "js") == ["jsonl"]
    assert "redis" in completed(complete_handler, "")
    assert completed(complete_option, "", handler="jsonl") == ["path="]
    assert completed(complete_option, "x", handler="jsonl") == []
    assert completed(complete_option, "", handler="jsonn") == []
    assert completed(complete_option, "") == []


def test_the_options_of_the_last_handler_are_completed():
    assert completed(complete_option, "m", names=("jsonl", "memory")) == ["maxlen="]


def test_values_of_a_mapping_can_be_elsewhere(monkeypatch, tmp_path):
    def create(site, *, headers: dict[str, str], tags: list[str]): ...

    monkeypatch.setenv("T", "from-a-variable")
    (tmp_path / "file").write_text("from-a-file\n")
    headers = f'headers={{"a":"env:T","b":"@{tmp_path}/file","c":"@@d","e":1}}'
    hidden = []
    assert read_options("mine", create, [headers, "tags="], hidden=hidden) == {
        "headers": {"a": "from-a-variable", "b": "from-a-file", "c": "@d", "e": 1},
        "tags": [],
    }
    assert hidden == ["from-a-variable", "from-a-file"]
    with pytest.raises(click.BadParameter, match="headers, 'a': The environment variable 'NOT'"):
        read_options("mine", create, [("headers", {"a": "env:NOT"})])


def test_an_output_that_was_closed_is_no_failure_of_who_logs(capsys):
    def closed(text, is_error):
        raise BrokenPipeError

    with log_lines(closed):
        logging.getLogger("telemetry").warning("lost")
    assert "BrokenPipeError" in capsys.readouterr().err  # as logging itself says it
