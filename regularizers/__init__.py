"""A loss made of a base loss and named, weighted regularizers, each of which reports on the bus.

Example:
    >>> import numpy as np
    >>> from regularizers import RegularizerSpec, custom_loss, penalties
    >>> output = custom_loss(
    ...     np.array([1.0, 2.0]),
    ...     np.array([-1.0, -2.0]),
    ...     lambda data, logprobs: -(data * logprobs).sum(),
    ...     regularizers=[RegularizerSpec(fn=penalties.l1, weight=0.1, name="sparsity")],
    ... )
    >>> round(output.loss_total, 9), round(output.regularizers["sparsity"].contribution, 9)
    (5.3, 0.3)
"""

from regularizers import penalties, schedules
from regularizers.emission import emit
from regularizers.errors import RegularizerError
from regularizers.logger import attach_logger
from regularizers.records import BaseLossOutput, CustomLossOutput, RegularizerOutput
from regularizers.runner import CustomLoss, custom_loss
from regularizers.spec import RegularizerSpec

__all__ = [
    "BaseLossOutput",
    "CustomLoss",
    "CustomLossOutput",
    "RegularizerError",
    "RegularizerOutput",
    "RegularizerSpec",
    "attach_logger",
    "custom_loss",
    "emit",
    "penalties",
    "schedules",
]
