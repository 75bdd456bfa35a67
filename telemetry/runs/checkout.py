"""The git checkout that the program runs from."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Final

GIT_TIMEOUT: Final = 2.0
"""Seconds, after which git is given up: a start must not wait for a file system that hangs."""
KILL_TIMEOUT: Final = 0.5
"""Seconds that a git which was given up has to end."""

_PACKAGES: Final = frozenset({"site-packages", "dist-packages"})


def git_commit(timeout: float = GIT_TIMEOUT) -> str | None:
    """The commit of the checkout that the main script, or else the working directory, is in.

    Args:
        timeout: Seconds that git may take for all that it is asked.

    Returns:
        The full hash; None outside of a checkout, and in one without a commit.

    Raises:
        OSError: There is no git, or no working directory.
        subprocess.TimeoutExpired: Git did not answer in time.
    """
    deadline = time.monotonic() + timeout
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is not None:
        directory = Path(script).resolve().parent
        commit = None if _is_installed(directory) else _commit_of(directory, deadline)
        if commit is not None:
            return commit
    return _commit_of(Path.cwd(), deadline)


def _is_installed(directory: Path) -> bool:
    """Whether a program there tells where it is installed, and not what it works on."""
    return directory == Path(sys.executable).parent.resolve() or not _PACKAGES.isdisjoint(
        directory.parts
    )


def _commit_of(directory: Path, deadline: float) -> str | None:
    import subprocess  # noqa: PLC0415 -- takes long to import, and is wanted once a run

    git = subprocess.Popen(  # noqa: S603 -- no shell, no option of the user's
        ["git", "-C", str(directory), "rev-parse", "--verify", "HEAD"],  # noqa: S607 -- the user's own git
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        answer, _ = git.communicate(timeout=max(0.0, deadline - time.monotonic()))
    except BaseException:  # an interruption, too, leaves no git behind
        git.kill()
        if git.stdout is not None:
            git.stdout.close()
        # One that waits for a dead file system cannot even be killed: it is not waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            git.wait(KILL_TIMEOUT)
        raise
    return answer.strip() if git.returncode == 0 else None
