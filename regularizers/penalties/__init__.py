"""Ready-made regularizers, for every framework.

Each is a function of ``(data, logprobs)`` that looks at ``logprobs`` only, a tensor or a tree of
tensors (dicts, lists, tuples), such as ``{"w": w, "b": b}`` or ``list(model.parameters())``: what
is penalized is whatever is handed over. Options are keyword arguments, set ahead of time by
``functools.partial``. Each has its gradient as ``.grad``, with the same arguments, so that gradient
norms are tracked on numpy too.

Computed on the tensors' device, in float32 at least. An empty tree has the value 0, for either
reduction; NaN gives NaN.

Example:
    >>> from functools import partial
    >>> from regularizers import RegularizerSpec, penalties
    >>> spec = RegularizerSpec(fn=partial(penalties.l1, reduction="mean"), weight=0.1, name="l1")
    >>> float(spec.fn(None, [1.0, -2.0]))
    1.5
"""

from regularizers.penalties.distributions import entropy
from regularizers.penalties.norms import l1, l2
from regularizers.penalties.penalty import Penalty

__all__ = ["Penalty", "entropy", "l1", "l2"]
