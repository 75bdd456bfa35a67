"""The log of what goes wrong in handlers: the logger ``telemetry`` of the standard library."""

from __future__ import annotations

import logging

logger = logging.getLogger("telemetry")


def log_error(error: BaseException, message: str, *values: object) -> None:
    """Log an error with its traceback, and survive the logging set-up that the user has."""
    try:
        logger.error(message, *values, exc_info=error)
    except Exception:
        # A filter or handler of logging that raises must not end what it only looks at.
        return
