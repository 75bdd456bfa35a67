"""What is known here of clippers that recorded norms are run through.

The clippers themselves are another package's, which nothing here imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from telemetry.viewer.clips.clippings import Key, RecordedClipping


class GroupDecision(NamedTuple):
    """What is done with the gradients of a group.

    Attributes:
        threshold: What its norm was held against; infinite or NaN where there was nothing.
        scale: Its factor, the smallest if it has several.
    """

    threshold: float
    scale: float


class Decision(NamedTuple):
    """What a clipper does, or would do, in one step.

    Attributes:
        threshold: What the norm of the model was held against; infinite or NaN where there was
            nothing; None if each group has its own.
        scale: The smallest factor.
        finite: Whether all norms are.
        groups: Of each group, unless there is one of the whole model.
    """

    threshold: float | None
    scale: float
    finite: bool
    groups: Mapping[Key, GroupDecision]


Decide: TypeAlias = Callable[[RecordedClipping], Decision]
"""Takes a run's norms one step after another.

Raises ValueError for norms that are not what the clipper needs, and FloatingPointError where it
would end the training.
"""


class Candidate(NamedTuple):
    """A clipper that is to be run over recorded norms.

    Attributes:
        name: What it is called.
        algo: Its algorithm.
        scope: What forms a group.
        scopes: What could.
        weighs: Whether it needs the norms of weights too.
        begin: Begins it anew.
    """

    name: str
    algo: str
    scope: str
    scopes: tuple[str, ...]
    weighs: bool
    begin: Callable[[], Decide]

    @property
    def needs_groups(self) -> bool:
        """Whether the norm of the whole model is not enough for it."""
        return self.scope != "global" or self.weighs
