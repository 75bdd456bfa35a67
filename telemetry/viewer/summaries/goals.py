"""Which way a metric gets better, by its name."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

Goal: TypeAlias = Literal["lowest", "highest"]

_LOWEST: Final = frozenset(
    {"loss", "losses", "error", "errors", "err", "perplexity", "ppl", "nll", "mse", "mae", "rmse"}
    | {"wer", "cer", "fid", "brier", "bpb", "bpc", "regret"}
)
_HIGHEST: Final = frozenset(
    {"accuracy", "acc", "top1", "top5", "f1", "auc", "auroc", "auprc", "precision", "recall"}
    | {"reward", "rewards", "return", "returns", "score", "bleu", "rouge", "dice", "iou", "miou"}
    | {"map", "ndcg", "mrr", "psnr", "ssim", "r2"}
)
_ENDS: Final[dict[str, Goal]] = {
    "explained_variance": "highest",
    "win_rate": "highest",
    "success_rate": "highest",
    "error_rate": "lowest",
}
"""What several words mean together."""
_SPLITS: Final = frozenset(
    {"train", "training", "val", "valid", "validation", "eval", "evaluation", "dev", "test"}
)
"""Last parts of names such as ``Loss/train``, whose part before says what it is."""
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NEITHER: Final = frozenset(
    {"scale", "weight", "std", "var", "norm", "count", "lr", "rate", "duration", "contribution"}
)
"""Words that make a metric of a loss or a reward that is none itself."""


def goal_of(name: str) -> Goal | None:
    """Which values of a metric are the best.

    The words of the last part of its name tell, or of the one before where the last is a split
    such as ``train``: a loss, an error or a perplexity is best where it is lowest, an accuracy, a
    score or a reward where it is highest. Words such as ``std``, ``scale`` and ``norm`` make it
    neither.

    Args:
        name: Its reported name.

    Returns:
        None where the name does not tell.

    Example:
        >>> [goal_of(name) for name in ("valLoss", "top1_acc/val", "lr", "amp.loss_scale")]
        ['lowest', 'highest', None, None]
    """
    parts = name.partition("[")[0].replace("/", ".").replace("-", "_").split(".")
    last = parts[-2] if len(parts) > 1 and parts[-1].lower() in _SPLITS else parts[-1]
    spelt = _HUMP.sub("_", last).lower()
    for end, goal in _ENDS.items():
        if f"_{spelt}".endswith(f"_{end}"):
            return goal
    words = {*spelt.split("_"), *last.lower().split("_")}  # mAP is a word as it is
    if words & _NEITHER:
        return None
    if words & _LOWEST:
        return "lowest"
    return "highest" if words & _HIGHEST else None
