"""What sinks raise when what they send cannot arrive.

RuntimeError
    DeliveryError
        CredentialsError
"""

from __future__ import annotations


class DeliveryError(RuntimeError):
    """The other end refuses what is sent, for a reason that does not pass by itself."""


class CredentialsError(DeliveryError):
    """The other end does not accept who is sending. The message names where they come from."""
