"""The rows of the event catalogue."""

from __future__ import annotations

from typing import Final

from telemetry.events.spec import EventSpec, Field
from telemetry.records import Pattern

_NS: Final = "ns"
_TIMES: Final = (
    Field("monotonic_time", "clock of this process", _NS),
    Field("system_time", "time since 1970-01-01 UTC", _NS),
)
_END: Final = (
    Field("duration", "from start to end", _NS),
    Field("monotonic_time", "clock of this process", _NS),
)
_SPAN: Final = Field("telemetry_span_context", "span_id, parent_id, trace_id")
_CAUSE: Final = (
    Field("kind", "'error' for an Exception, 'exit' for any other BaseException"),
    Field("reason", "the exception"),
    Field("stacktrace", "list of traceback.FrameSummary"),
)


def _span(
    prefix: Pattern,
    about: str,
    emitter: str,
    reported: str,
    stop: tuple[Field, ...] = (),
    metadata: tuple[Field, ...] = (),
    stop_metadata: tuple[Field, ...] = (),
    exception_metadata: tuple[Field, ...] = (),
    *,
    detail: bool = False,
) -> tuple[EventSpec, EventSpec, EventSpec]:
    always = (*metadata, _SPAN)
    ended = (*always, *stop_metadata)
    failed = (*always, *exception_metadata, *_CAUSE)
    return (
        EventSpec(
            (*prefix, "start"), f"{about} starts", emitter, reported, _TIMES, always, detail=detail
        ),
        EventSpec(
            (*prefix, "stop"),
            f"{about} has ended",
            emitter,
            reported,
            (*_END, *stop),
            ended,
            detail=detail,
        ),
        EventSpec((*prefix, "exception"), f"{about} has failed", emitter, reported, _END, failed),
    )


_ALGO: Final = Field("algo", "'autoclip', 'zscore' or 'agc'")
_SCOPE: Final = Field("scope", "what forms a group: 'global', 'per_layer', 'per_param', 'per_unit'")
_LIMITS: Final = (
    Field("threshold", "norm above which the group is clipped (autoclip, zscore)"),
    Field("target", "norm above which the group is clipped (agc)"),
    Field("weight_norm", "L2 norm of the group's weights (agc)"),
)
_YOURS: Final = "your code"
_STEP: Final = Field("step", "counted from 1")
_EPOCH: Final = Field("epoch", "counted from 1")

CATALOGUE: Final[tuple[EventSpec, ...]] = (
    *_span(
        ("smartclip", "clip"),
        "clipping the gradients of one optimizer step",
        "clipping",
        "smartclip.{measurement}",
        (
            Field("grad_norm", "L2 norm of the whole model's gradient before clipping"),
            Field("clipped_grad_norm", "the same after clipping"),
            Field("scale", "the smallest factor of any group, 1 if nothing is clipped"),
            Field("groups", "how many groups have a gradient"),
            Field("groups_clipped", "how many of them are scaled"),
            *(Field(limit.name, f"{limit.about}; for one group only") for limit in _LIMITS),
        ),
        (
            _ALGO,
            _SCOPE,
            Field("backend", "'torch', 'jax', 'tensorflow' or 'numpy'"),
            Field("dry_run", "whether the gradients are left alone"),
        ),
        (
            Field("outcome", "'applied', 'unclipped' or 'skipped'; where it is known on the host"),
            Field("clipper_step", "how many steps the clipper has seen; from a compiled step only"),
        ),
        detail=True,
    ),
    EventSpec(
        ("smartclip", "clip", "group"),
        "one group of gradients was looked at; under scope 'per_unit' the values are 1-d",
        "clipping",
        "smartclip.{measurement}[{key}]",
        (
            Field("grad_norm", "L2 norm of the group's gradient before clipping"),
            *_LIMITS,
            Field("scale", "factor in [0, 1]"),
            Field("clipped", "whether the factor is below 1"),
        ),
        (
            _ALGO,
            Field("key", "('global',), ('layer', 'conv1') or ('param', '0')"),
            _SCOPE,
            Field("clipper_step", "how many steps the clipper has seen; from a compiled step only"),
        ),
        detail=True,
    ),
    EventSpec(
        ("smartclip", "clip", "nonfinite"),
        "a gradient had a NaN or an infinity",
        "clipping",
        "smartclip.nonfinite.{measurement}",
        (
            Field("grad_norm", "the norm that is not finite"),
            Field("count", "how many groups are not finite"),
        ),
        (
            _ALGO,
            Field("keys", "the offending groups, and parameters that are in no group"),
            Field("policy", "'skip', 'zero', 'propagate' or 'raise'"),
            Field("clipper_step", "how many steps the clipper has seen; from a compiled step only"),
        ),
    ),
    *_span(
        ("custom_loss",),
        "computing a composed loss",
        "regularizers",
        "custom_loss.{measurement}",
        (
            Field("loss_total", "base loss + regularizer_total"),
            Field("regularizer_total", "sum of weight * value"),
            Field("total_grad_norm", "L2 norm of the total's gradient; only when tracked"),
        ),
        (
            Field("model_id", "as the caller named it"),
            Field("data_count", "how many items of data"),
            Field("regularizer_count", "how many regularizers"),
            Field("track_grad_norms", "whether gradient norms are computed"),
        ),
        detail=True,
    ),
    *_span(
        ("regularizer", "compute"),
        "evaluating one regularizer",
        "regularizers",
        "regularizer.{regularizer_name}.{measurement}",
        (
            Field("value", "before weighting"),
            Field("contribution", "weight * value"),
            Field("grad_norm", "L2 norm of the value's gradient; only when tracked"),
        ),
        (
            Field("regularizer_name", "as its spec names it"),
            Field("weight", "factor in the total, as it is at this step"),
            Field("async", "whether it is awaited"),
        ),
        detail=True,
    ),
    *_span(
        ("workflow", "run"),
        "a whole run",
        _YOURS,
        "workflow.{measurement}",
        metadata=(
            Field("workflow", "its name"),
            Field("run_id", "which run"),
            Field("attempt", "which attempt at it, counted from 1"),
            Field("host", "name of the machine"),
            Field("user", "who runs it"),
            Field("pid", "of the process"),
            Field("world_size", "processes of the distributed run"),
            Field("command", "the command line, without what looks like a secret"),
            Field("python", "its version"),
            Field("frameworks", "versions of those that are imported"),
            Field("git_commit", "of the checkout that the script is in"),
        ),
        exception_metadata=(Field("error", "what went wrong, in words"),),
    ),
    *_span(
        ("stage", "run"),
        "a stage of a run",
        _YOURS,
        "stage.{stage}.{measurement}",
        metadata=(Field("stage", "its name"), Field("module", "where it is defined")),
        stop_metadata=(Field("success", "whether it did what it should"),),
        exception_metadata=(Field("error", "what went wrong, in words"),),
    ),
    EventSpec(
        ("training", "step"),
        "an optimizer step was made",
        _YOURS,
        "training.{measurement}",
        (
            Field("loss", "training loss"),
            Field("lr", "learning rate"),
            Field("grad_norm", "L2 norm of the gradient"),
        ),
        (_STEP, Field("total_steps", "of the whole run"), _EPOCH),
    ),
    EventSpec(
        ("training", "timing"),
        "how long an optimizer step took, by the clock of the host",
        _YOURS,
        "training.{measurement}",
        (
            Field("step_duration", "of the step, waiting for its data included", _NS),
            Field("data_duration", "of waiting for its data", _NS),
            Field("batch_size", "items, of all its batches"),
            Field("samples_per_second", "items by step_duration"),
        ),
        (_STEP, Field("total_steps", "of the whole run"), _EPOCH),
        detail=True,
    ),
    EventSpec(
        ("training", "epoch"),
        "an epoch has ended",
        _YOURS,
        "training.{measurement}",
        (Field("epoch_loss", "mean training loss"),),
        (_EPOCH, Field("total_epochs", "of the whole run"), Field("step", "the last one of it")),
    ),
    EventSpec(
        ("training", "checkpoint"),
        "a checkpoint was saved",
        _YOURS,
        "training.checkpoint.{measurement}",
        (Field("size_bytes", "on disk", "bytes"),),
        (
            Field("checkpoint_name", "its name"),
            Field("path", "where it was saved"),
            Field("step", "at which optimizer step"),
            Field("epoch", "in which epoch"),
        ),
    ),
    EventSpec(
        ("training", "eval"),
        "a split was evaluated",
        _YOURS,
        "{split}.{measurement}",
        (),
        (
            Field("split", "'val', 'test', ..."),
            Field("step", "at which optimizer step"),
            Field("epoch", "in which epoch"),
        ),
    ),
    EventSpec(
        ("eval", "complete"),
        "an evaluation has ended",
        _YOURS,
        "eval.{measurement}",
        (),
        (Field("model", "which model"),),
    ),
    EventSpec(
        ("model", "registered"),
        "a model entered a registry",
        _YOURS,
        "model.{measurement}",
        (),
        (
            Field("name", "of the model"),
            Field("version", "of the model"),
            Field("model_id", "in the registry"),
        ),
    ),
    EventSpec(
        ("dataset", "load"),
        "a data set was loaded",
        _YOURS,
        "dataset.{measurement}",
        (Field("size", "items"), Field("duration", "of loading", _NS)),
        (Field("name", "of the data set"),),
    ),
    EventSpec(
        ("dataset", "batch"),
        "a batch was drawn",
        _YOURS,
        "dataset.{measurement}",
        (Field("batch_size", "items"),),
        (Field("batch_idx", "counted from 0"),),
        detail=True,
    ),
    EventSpec(
        ("rl", "step"),
        "a step of reinforcement learning was made",
        _YOURS,
        "rl.{measurement}",
        (
            Field("policy_loss", "surrogate loss of the policy"),
            Field("value_loss", "mean squared error of the value function"),
            Field("entropy", "of the policy", "nats"),
            Field("kl_divergence", "from the reference policy", "nats"),
            Field("clip_fraction", "share of clipped ratios, 0 to 1"),
            Field("advantage_mean", "mean advantage"),
            Field("advantage_std", "its standard deviation"),
            Field("explained_variance", "of the value function, at most 1"),
            Field("reward_mean", "mean reward"),
        ),
        (
            _STEP,
            _EPOCH,
            Field("run_id", "which run"),
            Field("user_id", "whose run"),
        ),
    ),
    EventSpec(
        ("performance", "sample"),
        "the machine was looked at",
        _YOURS,
        "performance.{measurement}",
        (
            Field("queue_depth", "waiting requests"),
            Field("cpu_utilization", "of the host, 0 to 100", "percent"),
            Field("memory_used_gb", "memory of the host in use", "GB"),
            Field("memory_utilization", "the same, 0 to 100", "percent"),
            Field("process_cpu_utilization", "of this process, 100 a core", "percent"),
            Field("process_memory_gb", "resident memory of this process", "GB"),
            Field("gpu_utilization", "0 to 100, the mean of all GPUs", "percent"),
            Field("gpu_memory_used_gb", "memory in use, the sum of all GPUs", "GB"),
            Field("forward_backward_duration_ms", "of a forward and backward pass", "ms"),
            Field("optim_step_duration_ms", "of an optimizer step", "ms"),
        ),
        detail=True,
    ),
    *_span(
        ("performance", "operation"),
        "a timed operation",
        _YOURS,
        "performance.{operation}_{measurement}_ms",
        metadata=(Field("operation", "its name"),),
        detail=True,
    ),
    EventSpec(
        ("alert", "raised"),
        "a measurement went beyond its limit",
        "telemetry",
        "alert.{rule}.{measurement}",
        (Field("value", "what was measured"), Field("limit", "what is allowed")),
        (
            Field("rule", "its name"),
            Field("severity", "how bad it is"),
            Field("metric", "what was measured"),
            Field("message", "in words"),
        ),
    ),
    EventSpec(
        ("alert", "cleared"),
        "a measurement is within its limit again",
        "telemetry",
        "alert.{rule}.{measurement}",
        (Field("value", "what was measured"), Field("limit", "what is allowed")),
        (
            Field("rule", "its name"),
            Field("severity", "how bad it was"),
            Field("metric", "what was measured"),
            Field("message", "in words"),
        ),
    ),
    EventSpec(
        ("telemetry", "handler", "failure"),
        "a handler raised an exception",
        "telemetry",
        "telemetry.handler.failure.{measurement}",
        _TIMES,
        (
            Field("event_name", "the event that it was called for"),
            Field("handler_id", "which handler"),
            Field("handler_config", "its config"),
            *_CAUSE,
        ),
    ),
    EventSpec(
        ("telemetry", "probe", "failure"),
        "a probe of the poller has failed, and worked before",
        "telemetry",
        "telemetry.probe.failure.{measurement}",
        _TIMES,
        (Field("probe", "its name"), *_CAUSE),
    ),
    EventSpec(
        ("telemetry", "handler", "overflow"),
        "a handler could not take events",
        "handlers",
        "telemetry.handler.overflow.{measurement}",
        (Field("dropped", "events lost since it was said last"),),
        (
            Field("handler_id", "which handler"),
            Field("policy", "why: 'drop_oldest', 'disk_full', 'not_finite', ... (docs/handlers)"),
        ),
    ),
)
