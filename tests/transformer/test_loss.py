"""The loss against the formula, by hand."""

import math

import pytest
import torch

from transformer.loss import label_smoothed_loss
from transformer.vocabulary import PAD


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_spread_over_the_whole_vocabulary(smoothing):
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    targets = torch.tensor([[3, 4, PAD], [2, PAD, PAD]])
    total, count = 0.0, 0
    for row, t in ((0, 0), (0, 1), (1, 0)):
        values = logits[row, t].tolist()
        log_sum = math.log(sum(math.exp(value) for value in values))
        for token, value in enumerate(values):
            share = smoothing / 5 + (1 - smoothing if token == targets[row, t] else 0.0)
            total -= share * (value - log_sum)
        count += 1
    assert label_smoothed_loss(logits, targets, smoothing).item() == pytest.approx(total / count, rel=1e-9)


def test_padding_does_not_count():
    logits = torch.randn(1, 4, 7)
    targets = torch.tensor([[5, 6, PAD, PAD]])
    changed = logits.clone()
    changed[:, 2:] = 100 * torch.randn(1, 2, 7)
    assert label_smoothed_loss(logits, targets, 0.1) == label_smoothed_loss(changed, targets, 0.1)


def test_smoothing_has_a_least_value_above_zero():
    """The least loss is the entropy of the smoothed distribution, as the paper's perplexity remark says."""
    smoothing, size = 0.1, 8
    right = 1 - smoothing + smoothing / size
    entropy = -right * math.log(right) - (size - 1) * smoothing / size * math.log(smoothing / size)
    best = torch.full((1, 1, size), math.log(smoothing / size))
    best[0, 0, 3] = math.log(right)
    target = torch.tensor([[3]])
    assert label_smoothed_loss(best, target, smoothing).item() == pytest.approx(entropy, rel=1e-5)
    assert label_smoothed_loss(best * 2, target, smoothing).item() > entropy
