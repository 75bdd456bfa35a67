"""``telemetry demo``: a small network learns digits, with the bus in the middle.

This package is a user of the bus, not a part of it: it may import the emitters and the handlers.
"""
