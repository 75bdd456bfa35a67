"""What rules and alerts say to people."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from telemetry.alerts.rule import Rule
from telemetry.alerts.track import Change
from telemetry.events.reported import bind, dotted, fill
from telemetry.metrics.naming import known
from telemetry.records import EventName


def condition(rule: Rule) -> str:
    """The condition of a rule in words.

    Example:
        >>> condition(Rule("kl", "rl.kl_divergence", above=0.1, for_steps=3))
        'above 0.1, 3 times in a row'
    """
    text = _condition(rule)
    if rule.for_steps > 1:
        text += f", {rule.for_steps} times in a row"
    if rule.share is not None:
        text += f", in more than {_percent(rule.share)} of the last {rule.window}"
    return text


def more_of(rule: Rule) -> str:
    """What else a rule says: when it is over, its cooldown, which events count.

    Example:
        >>> more_of(Rule("kl", "val.loss", above=0.1, clear=0.08, cooldown=60))
        "over at 0.08, not again within 60 s, where split = 'val'"
    """
    parts = []
    if isinstance(rule.clear, tuple):
        parts.append(f"over within {rule.clear[0]:g} to {rule.clear[1]:g}")
    elif rule.clear is not None:
        is_share = rule.share is not None or rule.drop is not None
        clear = _percent(rule.clear) if is_share else f"{rule.clear:g}"
        parts.append(f"over at {clear}{' times the level' if rule.spike is not None else ''}")
    if rule.cooldown:
        parts.append(f"not again within {rule.cooldown:g} s")
    parts += [f"where {key} = {value!r}" for key, value in rule.needs]
    return ", ".join(parts)


def message(
    rule: Rule, change: Change, event: EventName, measurement: str, metadata: Mapping[str, Any]
) -> str:
    """What has happened, in words, and what the rule says to do about it.

    Example:
        >>> rule = Rule("kl", "rl.kl_divergence", above=0.1, message="Lower the learning rate.")
        >>> message(rule, Change(True, 0.12, 0.1), ("rl", "step"), "kl_divergence", {})
        'rl.kl_divergence is 0.12: above 0.1. Lower the learning rate.'
    """
    name = name_of(event, measurement, metadata)
    if rule.stalled is not None:
        happened = f"no {name} for {change.value:.4g} s"
        over = f"{name} has come again, after {change.value:.4g} s"
    else:
        level = "" if change.level is None else f" (it was {change.level:.4g})"
        happened = f"{name} is {change.value:.4g}: {condition(rule)}{level}"
        over = f"{name} is {change.value:.4g}: {_ended(rule, change)}"
    if not change.raised:
        return f"{over}."
    return f"{happened}. {rule.message}" if rule.message else f"{happened}."


def _ended(rule: Rule, change: Change) -> str:
    if change.run_ended:
        return "its run has ended"
    if rule.share is not None:
        at = _percent(rule.share if not isinstance(rule.clear, float) else rule.clear)
        return f"{_condition(rule)} in at most {at} of the last {rule.window}"
    if rule.nonfinite:
        return "finite again"
    return f"no longer {_condition(rule)}"


def name_of(event: EventName, measurement: str, metadata: Mapping[str, Any]) -> str:
    """The name under which a measurement is reported; of an event alone, its own.

    Example:
        >>> name_of(("training", "eval"), "loss", {"split": "val"}), name_of(("rl", "step"), "", {})
        ('val.loss', 'rl.step')
    """
    if not measurement:
        return ".".join(event)
    return fill(_template(event, measurement), metadata)


@lru_cache(maxsize=1024)  # the whole catalogue is looked through
def _template(event: EventName, measurement: str) -> str:
    template = known(event, measurement).report_as
    if template.endswith("_ms"):
        return f"{dotted(event)}.{measurement}"  # which is in the unit of the event
    return bind(template, event, measurement)


def _condition(rule: Rule) -> str:
    if rule.above is not None:
        return f"above {rule.above:g}"
    if rule.below is not None:
        return f"below {rule.below:g}"
    if rule.outside is not None:
        return f"outside {rule.outside[0]:g} to {rule.outside[1]:g}"
    if rule.drop is not None:
        return f"more than {_percent(rule.drop)} below the median of the last {rule.window}"
    if rule.spike is not None:
        return f"above {rule.spike:g} times the median of the last {rule.window}"
    return "not finite" if rule.nonfinite else f"no event for {rule.stalled:g} s"


def _percent(share: float) -> str:
    return f"{share * 100:g} %"
