"""Alerts: rules on any measurement, which say on the bus when something goes wrong.

Example:
    >>> import telemetry
    >>> from telemetry import alerts
    >>> rules = [*alerts.TRAINING_RULES, alerts.Rule("overfit", "val.loss", above=2.5)]
    >>> with alerts.attach(rules), telemetry.testing.capture(("alert", "*")) as events:
    ...     telemetry.emit_step(loss=float("nan"), step=1)
    >>> print(events[0].metadata["rule"], events[0].metadata["severity"])
    loss_not_finite critical
"""

from telemetry.alerts.attachment import AlertsAttachment, attach
from telemetry.alerts.rule import Rule, Severity
from telemetry.alerts.rules_file import load
from telemetry.alerts.sets import RL_RULES, TRAINING_RULES

__all__ = [
    "RL_RULES",
    "TRAINING_RULES",
    "AlertsAttachment",
    "Rule",
    "Severity",
    "attach",
    "load",
]
