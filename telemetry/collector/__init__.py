"""`MetricsCollector`: a run's metrics to the bus, and a bounded history of them in memory."""

from telemetry.collector.collector import MetricsCollector, create_metrics_collector
from telemetry.collector.history import MetricsHistory
from telemetry.collector.operation import Operation

__all__ = ["MetricsCollector", "MetricsHistory", "Operation", "create_metrics_collector"]
