"""What the runner raises at its users.

Exception
└── RegularizerError          one or more regularizers failed; chained to the cause

Wrong arguments are plain ``TypeError`` and ``ValueError``; what the base loss function raises goes
through unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping


class RegularizerError(Exception):
    """One or more regularizers failed or took too long, while the others ran to their end.

    Its ``__cause__`` is the exception of the one that failed, or an ``ExceptionGroup`` of them.

    Attributes:
        failures: The exception of each regularizer that failed, by name, in the order given.

    Example:
        >>> str(RegularizerError({"sparsity": KeyError("mask")}))
        "Regularizer 'sparsity' failed: KeyError('mask')."
    """

    # TensorFlow's AutoGraph would put an error of its own in the place of this one.
    ag_pass_through = True

    def __init__(self, failures: Mapping[str, BaseException]) -> None:
        # Unpickling calls this with what is in args: the mapping, not a message.
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        return " ".join(
            f"Regularizer {name!r} failed: {error!r}." for name, error in self.failures.items()
        )
