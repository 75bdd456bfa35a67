"""What the pages about looking at a run have one type works on a run of the demo."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from telemetry.cli import commands

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "viewer").glob("*.md"))
COMMAND = re.compile(r"(?:\$ )?(telemetry (?:plot|summary|query|tail|replay) .*)")
ELSEWHERE = re.compile(r" -f\b| \| | (?:--to (?:wandb|mlflow)|run\.jsonl|runs/x)\b")
"""What never ends, needs another program or server, or is about a log of the reader's."""


def commands_of(page):
    """Each command that can be run here, with whether the page shows that it fails."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        lines = re.sub(r"\\\n *", "", block).splitlines()
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            typed = COMMAND.fullmatch(line)
            if typed and not ELSEWHERE.search(typed[1]):
                found.append((typed[1], after.startswith("Error: ")))
    return found


COMMANDS = [(page, *each) for page in PAGES for each in commands_of(page)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a run of the demo."""
    folder = tmp_path_factory.mktemp("reader")
    demo = [sys.executable, "-m", "telemetry", "demo", "--run-id", "demo", "--epochs", "3"]
    subprocess.run(
        [*demo, "--out", folder / "runs"], cwd=ROOT, capture_output=True, check=True, timeout=300
    )
    return folder


def test_there_are_commands():
    assert {typed.split()[1] for _, typed, _ in COMMANDS} >= {"plot", "summary", "query", "tail"}
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(
    ("page", "typed", "fails"),
    COMMANDS,
    ids=[f"{page.stem}: {typed}" for page, typed, _ in COMMANDS],
)
def test_a_command_of_a_page_ends_as_the_page_says(folder, monkeypatch, page, typed, fails):
    monkeypatch.chdir(folder)
    words = shlex.split(typed, comments=True)[1:]
    if ">" in words:
        words = words[: words.index(">")]
    done = CliRunner().invoke(commands, words)
    assert (done.exit_code != 0) is fails, f"{page.name}: {typed}\n{done.output}"
