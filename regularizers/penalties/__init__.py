"""Ready-made regularizers, for every framework.

Each is a function of ``(data, logprobs)``. What is penalized is ``logprobs``: a tensor or a tree of
tensors (dicts, lists, tuples), such as ``{"w": w, "b": b}`` or ``list(model.parameters())``. The
data are looked at by `kl_divergence` and `consistency`, which compare with what is there, and
handed on by `gradient_penalty`. Options are keyword arguments, set ahead of time by
``functools.partial``. Each has its gradient as ``.grad``, with the same arguments, so that gradient
norms are tracked on numpy too (but for `gradient_penalty`).

Computed on the tensors' device, in float32 at least. An empty tree has the value 0, for either
reduction; NaN gives NaN.

Example:
    >>> from functools import partial
    >>> from regularizers import RegularizerSpec, penalties
    >>> spec = RegularizerSpec(fn=partial(penalties.l1, reduction="mean"), weight=0.1, name="l1")
    >>> float(spec.fn(None, [1.0, -2.0]))
    1.5
"""

from regularizers.penalties.distributions import entropy, kl_divergence
from regularizers.penalties.matrices import orthogonality
from regularizers.penalties.norms import elastic_net, l1, l2
from regularizers.penalties.penalty import Penalty
from regularizers.penalties.slopes import gradient_penalty
from regularizers.penalties.views import consistency

__all__ = [
    "Penalty",
    "consistency",
    "elastic_net",
    "entropy",
    "gradient_penalty",
    "kl_divergence",
    "l1",
    "l2",
    "orthogonality",
]
