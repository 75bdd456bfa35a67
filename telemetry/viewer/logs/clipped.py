"""What gradient clippers did, by the records of their steps, in SQL."""

from __future__ import annotations

from typing import Final

from telemetry.viewer.logs.records import OURS

STOP: Final = "smartclip.clip.stop"
IS_STOP: Final = f"form = {OURS} AND event = '{STOP}'"
"""Which records are of a clipper's step."""
IS_DRY_RUN: Final = "coalesce(metadata->>'dry_run', 'false') = 'true'"
"""Which of them are of a clipper that only watched."""
IS_FINITE: Final = "coalesce(isfinite(try_cast(measurements->>'grad_norm' AS DOUBLE)), true)"
"""In which of them nothing says that a gradient was not finite."""
SCALE: Final = "try_cast(measurements->>'scale' AS DOUBLE)"
IS_CLIPPED: Final = f"coalesce({IS_FINITE} AND {SCALE} < 1, false)"
"""In which of them gradients were scaled. A step that was skipped because a gradient was not finite
has a scale of 0, and is none of these."""
