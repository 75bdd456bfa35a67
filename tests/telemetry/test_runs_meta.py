"""What the start of a run tells of the process, its machine and its checkout."""

import os
import platform
import shutil
import socket
import subprocess
import sys

import pytest

import telemetry
from telemetry.runs import RUN_META, run_meta
from telemetry.runs.checkout import git_commit
from telemetry.testing import capture

GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-C", folder, *arguments],
        env={**os.environ, **GIT},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one commit, and its hash; the main script is elsewhere."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder, git(folder, "rev-parse", "HEAD")


def test_the_process_and_its_machine(monkeypatch):
    import numpy as np

    for variable in telemetry.ranks.SIZE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    meta = run_meta()
    assert meta["host"] == socket.gethostname()
    assert meta["pid"] == os.getpid()
    assert meta["python"] == platform.python_version()
    assert meta["world_size"] == 1
    assert meta["frameworks"]["numpy"] == np.__version__
    assert set(meta) <= set(RUN_META)


def test_each_can_be_left_out():
    for name in RUN_META:
        assert name not in run_meta(without=[name])
    assert run_meta(without=RUN_META) == {}


def test_no_framework_is_imported_for_it(run_script):
    done = run_script(
        "import sys, telemetry\n"
        "telemetry.runs.run_meta()\n"
        "print(sorted({'torch', 'jax', 'numpy', 'tensorflow'} & sys.modules.keys()))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("without", "error", "said"),
    [
        ("user", TypeError, "without must be a list of names, got 'user' (str). "),
        (None, TypeError, "without must be a list of names, got None (NoneType). "),
        (3, TypeError, "without must be a list of names, got 3 (int). "),
        (
            ["git_comit"],
            ValueError,
            (
                "without has 'git_comit', which the start of a run does not tell. "
                "Did you mean 'git_commit'? Allowed: host, user, pid, world_size, command, python, "
                "frameworks, git_commit."
            ),
        ),
        ([3], ValueError, "without has 3, which the start of a run does not tell. Allowed: host"),
    ],
)
def test_a_misspelt_name_is_refused_when_the_run_is_made(without, error, said):
    for call in (lambda: run_meta(without), lambda: telemetry.workflow_run("w", without=without)):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(said)


def test_without_may_be_an_iterator_and_serves_each_call_of_a_function():
    @telemetry.workflow_run("w", without=iter(RUN_META))
    def train():
        pass

    with capture(("workflow", "run", "start")) as events:
        train()
        train()
    assert all(not set(RUN_META) & event.metadata.keys() for event in events)
    assert len(events) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs the user database of POSIX")
def test_a_user_without_an_entry_is_left_out(monkeypatch):
    import pwd

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    unknown = 54_321_012
    with pytest.raises(KeyError):
        pwd.getpwuid(unknown)
    monkeypatch.setattr(os, "getuid", lambda: unknown)
    meta = run_meta(without=["git_commit"])
    assert "user" not in meta
    assert meta["host"]


@needs_git
def test_the_commit_of_the_working_directory(checkout, monkeypatch):
    folder, commit = checkout
    below = folder / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert run_meta()["git_commit"] == commit
    assert len(commit) == 40


@needs_git
def test_a_worktree_and_a_detached_head(checkout, monkeypatch, tmp_path):
    folder, first = checkout
    git(folder, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "second")
    second = git(tmp_path / "tree", "rev-parse", "HEAD")
    monkeypatch.chdir(tmp_path / "tree")
    assert git_commit() == second
    git(tmp_path / "tree", "checkout", "-q", "--detach", first)
    assert git_commit() == first


@needs_git
def test_the_scripts_checkout_goes_before_the_working_directorys(checkout, monkeypatch, tmp_path):
    folder, commit = checkout
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(folder / "x.py"), raising=False)
    monkeypatch.chdir(tmp_path)
    assert git_commit() == commit


@needs_git
def test_a_program_that_is_installed_tells_nothing_of_its_own(checkout, monkeypatch, tmp_path):
    folder, _ = checkout
    installed = folder / "env" / "site-packages" / "pytest"
    installed.mkdir(parents=True)
    main = str(installed / "__main__.py")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", main, raising=False)
    monkeypatch.chdir(tmp_path)
    assert git_commit() is None


@needs_git
def test_outside_of_a_checkout_and_before_its_first_commit(checkout, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "git_commit" not in run_meta()
    git(tmp_path, "init", "-q")
    assert "git_commit" not in run_meta()


def test_without_git_the_run_goes_on(checkout, monkeypatch):
    monkeypatch.chdir(checkout[0])
    monkeypatch.setenv("PATH", "")
    assert "git_commit" not in run_meta()


def test_a_git_that_hangs_is_given_up(tmp_path, monkeypatch):
    hanging = tmp_path / "git"
    hanging.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(subprocess.TimeoutExpired):
        git_commit(timeout=0.2)


@needs_git
def test_git_has_one_deadline_for_all_that_it_is_asked(tmp_path, monkeypatch):
    asked = tmp_path / "asked"
    slow = tmp_path / "git"
    slow.write_text(f"#!/bin/sh\necho asked >> {asked}\n/bin/sleep 1.4\nexit 1\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "x.py"), raising=False)
    with pytest.raises(subprocess.TimeoutExpired):
        git_commit(timeout=2.0)  # two answers take 2.8 s
    assert asked.exists()


def test_a_directory_that_is_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "git_commit" not in run_meta()


def test_git_is_asked_only_if_somebody_hears_the_run(tmp_path, monkeypatch):
    asked = tmp_path / "asked"
    spy = tmp_path / "git"
    spy.write_text(f"#!/bin/sh\necho asked >> {asked}\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with telemetry.workflow_run("w"), telemetry.stage_run("s"):
        pass
    with capture(("training", "**")), telemetry.workflow_run("w"):
        pass
    assert not asked.exists()
    with capture(("workflow", "run", "stop")), telemetry.workflow_run("w"):
        pass
    assert asked.exists()
