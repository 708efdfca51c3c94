"""The training loss: cross-entropy with label smoothing (section 5.4).

With smoothing e the target distribution is (1 - e) on the right token plus e / V on every token of the
vocabulary, as in `torch.nn.functional.cross_entropy`. Other tools spread e over V - 1 or V - 2 tokens, so losses are
not comparable across tools.

Legend: B batch, T target length, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor

from transformer.vocabulary import PAD


def label_smoothed_loss(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean loss per real token, in nats.

    Args:
        logits: (B, T, V).
        targets: (B, T); PAD does not count.
        smoothing: e in [0, 1).
    """
    return F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, label_smoothing=smoothing
    )
