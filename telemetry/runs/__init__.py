"""Runs and their stages: spans, identity, and what the start of a run tells."""

from telemetry.runs.attempts import Attempt, next_attempt
from telemetry.runs.current import CURRENT_RUN, ambient_identity, current_run
from telemetry.runs.identity import attempt_of_the_job, new_run_id
from telemetry.runs.meta import RUN_META, run_meta
from telemetry.runs.spans import StageRun, WorkflowRun, stage_run, workflow_run

__all__ = [
    "CURRENT_RUN",
    "RUN_META",
    "Attempt",
    "StageRun",
    "WorkflowRun",
    "ambient_identity",
    "attempt_of_the_job",
    "current_run",
    "new_run_id",
    "next_attempt",
    "run_meta",
    "stage_run",
    "workflow_run",
]
