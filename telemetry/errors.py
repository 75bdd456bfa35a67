"""What the bus raises at its users.

ValueError
└── HandlerExistsError        attach with an id that is taken
LookupError
└── HandlerNotFoundError      detach of an id that nobody has
ImportError
├── MissingExtraError         a feature needs a package that is not installed
└── ShadowedPackageError      one of our packages is hidden by somebody else's file

Wrong types and values of arguments are plain ``TypeError`` and ``ValueError``.
"""

from __future__ import annotations


class HandlerExistsError(ValueError):
    """A handler with this id is already attached."""


class HandlerNotFoundError(LookupError):
    """No handler with this id is attached."""


class MissingExtraError(ImportError):
    """A feature needs a package that one of the extras brings."""


class ShadowedPackageError(ImportError):
    """An import by name found a file that is not ours."""
