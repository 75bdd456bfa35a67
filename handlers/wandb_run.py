"""The run of W&B that a handler logs to: somebody's, or a new one.

Source: https://docs.wandb.ai/models/ref/python/functions/init
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from handlers.directories import directory_of
from handlers.errors import CredentialsError, DeliveryError
from handlers.options import check_seconds
from handlers.ranked import RANK, ranked
from handlers.records import Site
from handlers.secrets import Secrets, redact_urls
from telemetry.extras import import_extra

TEXTS: Final = ("project", "name", "entity", "group", "job_type", "notes", "run_id", "api_key")
SECONDS: Final = ("flush_interval", "init_timeout", "finish_timeout")
DESCRIBING: Final = (*TEXTS, "mode", "dir", "tags", "config", "resume", "settings")
MODES: Final = ("online", "offline", "disabled")
RESUMES: Final = (True, False, "allow", "never", "must", "auto")
KEY: Final = "WANDB_API_KEY"
TIMED_OUT: Final = "timed out"
NO_KEY: Final = "No API key"
"""What W&B says of a place that cannot be reached, and where it would ask for a key."""

logger = logging.getLogger("telemetry")


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """What a run of the handler's own is to be; see `handlers.wandb.create`."""

    site: Site
    project: str | None
    name: str | None
    mode: str | None
    dir: str | os.PathLike[str] | None
    entity: str | None
    group: str | None
    job_type: str | None
    tags: Sequence[str]
    notes: str | None
    config: Mapping[str, Any] | None
    run_id: str | None
    resume: bool | str | None
    api_key: str | None = field(repr=False)
    settings: Mapping[str, Any] | None = field(repr=False)
    flush_interval: float
    init_timeout: float
    finish_timeout: float

    @property
    def secrets(self) -> Secrets:
        """What nothing that is shown may have in it."""
        given = (self.settings or {}).get("api_key")
        own = given if isinstance(given, str) else None
        return Secrets(self.api_key, own, os.environ.get(KEY))

    @property
    def described(self) -> list[str]:
        """The options that were given for a new run."""
        return [option for option in DESCRIBING if getattr(self, option) not in (None, ())]

    def check(self) -> None:
        """Refuse what no run can be made with.

        Raises:
            TypeError: An option is of a wrong type.
            ValueError: One has a value that is not allowed.
        """
        for option in TEXTS:
            self._check_text(option)
        for option in SECONDS:
            check_seconds(f"{self._about}: {option}", getattr(self, option))
        if not (
            isinstance(self.tags, list | tuple) and all(isinstance(tag, str) for tag in self.tags)
        ):
            raise TypeError(
                f"{self._about}: tags must be a list of strings, got {self.tags!r}. "
                "Write tags=['baseline']."
            )
        for option in ("config", "settings"):
            self._check_mapping(option)
        if self.dir is not None:
            directory_of(self.site, "dir", self.dir)
        if self.run_id is not None and self.site.ranks == "all" and RANK not in self.run_id:
            raise ValueError(
                f"{self._about}: with ranks='all' the ranks would write to one run, "
                f"run_id={self.run_id!r}. Write {RANK} in it."
            )
        self._check_choice("mode", MODES)
        self._check_choice("resume", RESUMES)

    def ranked(self) -> NewRun:
        """The run of this process, with the rank in its name and id."""
        return replace(
            self,
            name=None if self.name is None else ranked(self.site, self.name),
            run_id=None if self.run_id is None else ranked(self.site, self.run_id),
            dir=None if self.dir is None else directory_of(self.site, "dir", self.dir),
        )

    def begin(self, vendor: ModuleType) -> Any:
        """Begin the run: online if that is wanted and possible, offline if W&B is not reached.

        Args:
            vendor: The module ``wandb``.

        Returns:
            The ``wandb.Run``.
        """
        settings = self._checked(vendor)
        usual = vendor.setup().settings
        mode = self.mode or (self.settings or {}).get("mode") or usual.mode
        if mode != "disabled":
            self._check_directory()
            self._check_host(settings.base_url if self._gives("base_url") else usual.base_url)
        try:
            return self._init(vendor, settings, mode)
        except Exception as error:
            if mode != "online" or TIMED_OUT not in str(error).lower():
                raise self._refusal(vendor, settings, error) from None
            reason = self.secrets.redact(str(error).partition("\n")[0])
        run = self._init(vendor, settings, "offline")
        logger.warning(
            "Handler %r cannot reach W&B (%s). It writes the run to disk; send it later with: "
            "wandb sync %s",
            self.site.handler_id,
            reason,
            Path(run.dir).parent,
        )
        return run

    @property
    def _about(self) -> str:
        return f"Handler {self.site.handler_id!r}"

    def _settings(self) -> dict[str, Any]:
        ours = {
            "silent": True,
            "console": "off",
            "save_code": False,
            "init_timeout": self.init_timeout,
            "finish_timeout": self.finish_timeout,
            "finish_timeout_raises": True,
            "x_transaction_log_flush_interval": self.flush_interval / 2,
        }
        key = {"api_key": self.api_key} if self.api_key else {}
        return {**ours, **key, **(self.settings or {})}

    def _init(self, vendor: ModuleType, settings: Any, mode: str) -> Any:
        with _silence(vendor):
            return vendor.init(**self._init_options(settings, mode))

    def _init_options(self, settings: Any, mode: str) -> dict[str, Any]:
        return {
            "project": self.project,
            "name": self.name,
            "mode": mode,
            "dir": self.dir,
            "entity": self.entity,
            "group": self.group,
            "job_type": self.job_type,
            "tags": list(self.tags) or None,
            "notes": self.notes,
            "config": None if self.config is None else dict(self.config),
            "id": self.run_id,
            "resume": self.resume,
            "settings": settings,
        }

    def _checked(self, vendor: ModuleType) -> Any:
        """The settings, as W&B takes them."""
        try:
            vendor.Settings(project=self.project, run_id=self.run_id, entity=self.entity)
        except Exception as error:
            raise ValueError(f"{self._about}: {self._said(error)}") from None
        try:
            return vendor.Settings(**self._settings())
        except Exception as error:
            raise ValueError(
                f"{self._about}: settings are not those of wandb.Settings: {self._said(error)}"
            ) from None

    def _said(self, error: Exception) -> str:
        """What is wrong with a setting."""
        said = _without_values(error) if isinstance(error, ValueError) else error
        return self.secrets.redact(said)

    def _gives(self, setting: str) -> bool:
        return setting in (self.settings or {})

    def _check_host(self, url: str) -> None:
        """W&B sends a key and no password, and writes the address to its logs."""
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise ValueError(
                f"{self._about}: the address of W&B has a user or a password in it, which is never "
                f"sent: {redact_urls(url)!r}. Leave them out of WANDB_BASE_URL, and give a key: "
                f"{KEY}."
            )

    def _check_directory(self) -> None:
        """W&B itself would write to a temporary directory instead, without a word."""
        whole = Path(self.dir or os.environ.get("WANDB_DIR") or ".").absolute()
        try:
            whole.mkdir(parents=True, exist_ok=True)
            if not os.access(whole, os.W_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self._about} cannot write in {str(whole)!r}: {error.strerror}. "
                "Give a directory that can be written: dir='runs'.",
            ) from error

    def _refusal(self, vendor: ModuleType, settings: Any, error: Exception) -> DeliveryError:
        said = self.secrets.redact(f"{type(error).__name__}: {error}")
        if NO_KEY in said:
            usual = vendor.setup().settings
            url = settings.base_url if self._gives("base_url") else usual.base_url
            return CredentialsError(
                f"{self._about} has no key for W&B at {redact_urls(url)}. Set {KEY}, run "
                "'wandb login', or write to disk only: mode='offline'."
            )
        if isinstance(error, vendor.errors.CommError | vendor.errors.AuthenticationError):
            return CredentialsError(
                f"{self._about}: W&B refuses the run: {said}. Check the key ({KEY}, api_key=... or "
                "'wandb login'), and that it may write to this entity and project."
            )
        return DeliveryError(f"{self._about}: W&B cannot begin the run: {said}")

    def _check_text(self, option: str) -> None:
        given = getattr(self, option)
        if given is not None and not isinstance(given, str):
            shown = type(given).__name__ if option == "api_key" else f"{given!r}"
            raise TypeError(f"{self._about}: {option} must be a string, got {shown}.")

    def _check_mapping(self, option: str) -> None:
        given = getattr(self, option)
        if given is None:
            return
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise TypeError(
                f"{self._about}: {option} must be a mapping with strings as keys, got "
                f"{type(given).__name__}. Write {option}={{...}}."
            )

    def _check_choice(self, option: str, allowed: tuple[object, ...]) -> None:
        given = getattr(self, option)
        if given is not None and given not in allowed:
            raise ValueError(f"{self._about}: {option} must be one of {allowed!r}, got {given!r}.")


def import_wandb(module: str = "wandb") -> ModuleType:
    """A module of W&B.

    Raises:
        MissingExtraError: It cannot be imported.
    """
    return import_extra(module, extra="wandb", feature="The handler 'wandb'")


@contextmanager
def _silence(vendor: ModuleType) -> Iterator[None]:
    """Keep W&B from asking for a key, and from saying whose it has found for which address."""
    usual = vendor.setup().settings
    vendor.termsetup(vendor.Settings(silent=True), None)
    try:
        yield
    finally:
        vendor.termsetup(usual, None)


def _without_values(error: Any) -> str:
    """What a ``pydantic.ValidationError`` says, without the values: one may be the key."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)


def running(vendor: ModuleType, new: NewRun, run: Any) -> Any:
    """The run that is there already, if one is to be used: the one given, or W&B's active one.

    Args:
        vendor: The module ``wandb``.
        new: What a new one would be.
        run: The one given.

    Raises:
        TypeError: What was given is no run.
        ValueError: A run was given, and options for a new one.
    """
    about = f"Handler {new.site.handler_id!r}"
    if run is None:
        if vendor.run is not None and new.described:
            logger.warning(
                "%s logs to the active W&B run %r; what was given for a new one is not used: %s.",
                about,
                vendor.run.id,
                ", ".join(new.described),
            )
        if vendor.run is not None:
            _warn_of_late_writes(new, vendor.run)
        return vendor.run
    if not isinstance(run, vendor.Run):
        raise TypeError(
            f"{about}: run must be a wandb.Run, got {run!r} ({type(run).__name__}). "
            "Write run=wandb.init(...)."
        )
    if new.described:
        raise ValueError(
            f"{about}: run={run.id!r} was given, and options for a new run: "
            f"{', '.join(new.described)}. Leave out either."
        )
    _warn_of_late_writes(new, run)
    return run


def _warn_of_late_writes(new: NewRun, run: Any) -> None:
    """Say what ``flush_interval`` cannot do for a run that was begun without it."""
    interval = run.settings.x_transaction_log_flush_interval
    if run.disabled or (interval and interval <= new.flush_interval):
        return
    logger.warning(
        "Handler %r: flush_interval=%r does nothing for the W&B run %r, which was begun without "
        "it. If the process is killed, its last 15 s can be lost. Begin the run with "
        "settings=wandb.Settings(x_transaction_log_flush_interval=%r).",
        new.site.handler_id,
        new.flush_interval,
        run.id,
        new.flush_interval / 2,
    )
