"""The command line that a run shows: without secrets, and bounded."""

import sys

import pytest

import telemetry
from telemetry.runs.command import MAX_ARGUMENT, MAX_COMMAND, shown_command
from telemetry.testing import capture

SECRET = "5ecret-5ecret"  # noqa: S105 -- of nothing

HIDDEN = [
    ["--api-key", SECRET],
    ["--api_key", SECRET],
    ["--apiKey", SECRET],
    ["--apikey", SECRET],
    ["-api_key", SECRET],
    [f"--api-key={SECRET}"],
    [f"--api_key={SECRET}"],
    [f"API_KEY={SECRET}"],
    [f"HF_TOKEN={SECRET}"],
    ["--token", f"-{SECRET}"],
    ["--hf-token", SECRET],
    ["--password", SECRET],
    [f"--db.passwd={SECRET}"],
    ["--pass", SECRET],
    ["--client-secret", SECRET],
    ["--credentials", SECRET],
    ["--auth", f"user:{SECRET}"],
    ["--api-keys", f"{SECRET},other"],
    ["--wandb-key", f"{SECRET} with a space"],
    [f"model.api_key={SECRET}"],
    [f"+logger.token={SECRET}"],
    ["--webhook-url", f"https://example.com/{SECRET}"],
    ["--slack", f"https://hooks.slack.com/services/T0/B0/{SECRET}"],
    [f"https://discord.com/api/webhooks/1/{SECRET}"],
    ["--redis", f"redis://user:{SECRET}@host:6379/0"],
    [f"postgres://user:p/{SECRET}@host/db"],
    [f"--git=https://{SECRET}@github.com/me/it"],
    [f"s3://bucket/x?X-Amz-Signature={SECRET}&y=1"],
    [f"https://host/x?a=1&sig={SECRET}"],
    ["-H", f"Authorization: Bearer {SECRET}"],
    ["--header", f"X-Api-Key: {SECRET}"],
    ["--config", f'{{"lr": 1, "api_key": "{SECRET} and more", "x": 2}}'],
    ["--env", f"A=1,TOKEN={SECRET},B=2"],
    ["-c", f"import os; os.environ['HF_TOKEN'] = '{SECRET}'"],
    ["-c", f"login(password, '{SECRET}')"],
    ["--api-keys", f"{SECRET}1", f"{SECRET}2", "-x", "1"],
    ["--token", "--", SECRET],
    ["--password", "", SECRET],
    ["-e", "HF_TOKEN", SECRET],
    ["--cmd", f"python x.py --api-key {SECRET} --seed 1"],
    ["--cmd", f"x '--api-key' '{SECRET}'"],
    ["bash", "x.sh", f"export A_TOKEN={SECRET}; python t.py"],
    [f'{{"password": "a\\"{SECRET}", "seed": 1}}'],
    [f'{{"tokens": 5, "token": ["a", "{SECRET}"]}}'],
    [f'{{"auth": {{"user": "me", "word": "{SECRET}"}}}}'],
    [f'{{\\"api_key\\": \\"a {SECRET}\\"}}'],
    [f"api_key: [a, {SECRET}]"],
    ["-H", f"Cookie: a=1; b={SECRET}"],
    ["-H", f'Authorization: Digest username="me", response="{SECRET}"'],
    ["--headers", f'{{"Authorization": "Bearer {SECRET}"}}'],
    ["x.sh", f"curl -H 'Cookie: a=1; b={SECRET}' http://host"],
    [f"sk-{SECRET}0123456789"],
    ["-k", f"hf_{SECRET.replace('-', '')}0123456789"],
    [f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}"],
]


@pytest.mark.parametrize("arguments", HIDDEN, ids=" ".join)
def test_what_looks_like_a_secret_is_hidden(arguments):
    shown = shown_command(["python", "train.py", *arguments, "--lr", "0.1"])
    assert SECRET not in shown
    assert SECRET.replace("-", "") not in shown
    assert "***" in shown
    assert shown.startswith("python ")
    assert shown.endswith(" --lr 0.1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tokenizer", "gpt2"],
        ["--tokenizer=gpt2"],
        ["--max-tokens", "512"],
        ["--max_new_tokens=512"],
        ["--num-tokens-per-batch", "8"],
        ["--keyframes", "5"],
        ["tokenize.py", "monkeys.csv"],
        ["https://example.com/data.tar"],
        ["s3://bucket/data@v2/part"],
        ["-c", "import train; train.main()"],
        ["--prompt", "what is the key to success"],
        ["--cmd", "python x.py --lr 0.1 - --tokenizer gpt2"],
        ['{"tokenizer": "gpt2", "max_tokens": 5}'],
        ["EPOCHS", "3"],
    ],
    ids=" ".join,
)
def test_the_usual_options_of_training_are_shown(arguments):
    import shlex

    assert shown_command(arguments) == shlex.join(arguments)


def test_the_next_option_is_not_taken_for_a_secret():
    assert shown_command(["x", "--use-token", "--lr", "0.1"]) == "x --use-token --lr 0.1"


def test_the_values_of_a_secret_end_with_the_next_option():
    assert (
        shown_command(["x", "--api-keys", "a", "b", "-v", "3"]) == "x --api-keys '***' '***' -v 3"
    )
    assert shown_command(["-e", "HF_TOKEN", "a", "train.py"]) == "-e HF_TOKEN '***' train.py"
    assert shown_command(["--cmd", "x --token a --lr 1"]) == "--cmd 'x --token *** --lr 1'"


def test_who_sends_is_hidden_and_where_to_is_shown():
    assert shown_command(["redis://user:word@host:6379/0"]) == "'redis://***@host:6379/0'"
    assert shown_command(["https://hooks.slack.com/services/T/B/X"]) == (
        "'https://hooks.slack.com/***'"
    )


def test_a_script_of_thousands_of_characters_is_cut():
    shown = shown_command(["python", "-c", "print(1)\n" * 3000, "--lr", "0.1"])
    assert len(shown) < MAX_ARGUMENT + 50
    assert shown.endswith("…' --lr 0.1")


def test_a_long_command_is_cut():
    shown = shown_command(["python", *(f"file{number}" for number in range(100_000))])
    assert len(shown) == MAX_COMMAND
    assert shown.startswith("python file0 file1 ")
    assert shown.endswith("…")


def test_of_many_long_arguments_the_first_are_looked_at():
    asked = 0

    class Argument(str):
        __slots__ = ()

        def partition(self, separator):
            nonlocal asked
            asked += 1
            return super().partition(separator)

        def __getitem__(self, part):
            return Argument(super().__getitem__(part))

    shown = shown_command([Argument("xoxa-" * 160)] * 500)
    assert shown.startswith("'***'")
    assert shown.endswith(" …")
    assert asked == 8 * MAX_COMMAND // 800


def test_what_is_no_text_can_be_written():
    shown = shown_command(["caf\udce9", "two words", ""])
    assert shown.encode() == b"'caf\\udce9' 'two words' ''"


def test_the_start_of_a_run_has_the_command_of_the_process(monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "train.py", f"--api-key={SECRET}"])
    with capture(("workflow", "run", "start")) as events, telemetry.workflow_run("w"):
        pass
    assert events[0].metadata["command"] == "python train.py '--api-key=***'"
