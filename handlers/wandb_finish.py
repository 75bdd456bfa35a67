"""The end of a run of W&B.

Source: https://docs.wandb.ai/models/ref/python/experiments/run#method-runfinish
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from handlers.records import Site
from handlers.secrets import Secrets
from handlers.wandb_run import import_wandb

logger = logging.getLogger("telemetry")


def finish(site: Site, run: Any, exit_code: int, secrets: Secrets) -> None:
    """Finish a run; afterwards it is not the active one any more, whatever happened.

    Args:
        site: Where the handler is attached.
        run: The ``wandb.Run``.
        exit_code: 0 for success.
        secrets: What the log must not show.
    """
    try:
        run.finish(exit_code=exit_code)
    except Exception as error:
        trouble = "in time" if isinstance(error, TimeoutError) else f"({secrets.redact(error)})"
        logger.warning(
            "Handler %r: the upload to W&B was not finished %s. It is on disk: wandb sync %s",
            site.handler_id,
            trouble,
            Path(run.dir).parent,
        )
    finally:
        # Or the next one who asks for the active run gets one that takes nothing.
        if import_wandb().run is run:
            import_wandb("wandb.sdk.lib.module").unset_globals()
