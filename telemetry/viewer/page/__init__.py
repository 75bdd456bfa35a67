"""A live page in the browser: charts, clipping, losses, spans and alerts of runs.

It is served on this machine; `telemetry view` starts it.
"""
