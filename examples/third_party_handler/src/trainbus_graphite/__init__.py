"""A handler for trainbus that sends measurements to Graphite."""

from trainbus_graphite.sink import Graphite, create

__all__ = ["Graphite", "create"]
