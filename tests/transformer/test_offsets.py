"""Dot products against the distance, by hand and against a model's own scores."""

import pytest
import torch

from transformer.analysis.offsets import offset_spread, rotary_scores, undo_rotation
from transformer.positions import rotate
from transformer.trace import Trace


def test_unrotating_is_the_inverse():
    x = torch.randn(2, 3, 7, 8)
    torch.testing.assert_close(
        undo_rotation(rotate(x, 100.0, start=4), 100.0, start=4), x, atol=1e-6, rtol=1e-5
    )


def test_spread_is_zero_only_if_the_distance_says_everything():
    distance = (torch.arange(6)[:, None] - torch.arange(6)).float()
    assert offset_spread(distance) == 0.0
    distance[4, 2] += 0.25
    assert offset_spread(distance) == 0.25


def test_scores_depend_on_the_distance_alone_and_equal_the_models_own(make_model):
    model = make_model(positions="rotary")
    trace = Trace()
    with torch.no_grad():
        model.encode(torch.tensor([[5, 7, 9, 4, 2]]), trace)
    attention = model.encoder[1].self_attention.attention
    queries, keys = (trace[f"encoder.1.self_attention.{part}"][0, 1] for part in ("queries", "keys"))
    scores = trace["encoder.1.self_attention.scores"][0, 1]
    base = model.config.position_base
    for m in range(5):
        for n in range(5):
            query = undo_rotation(queries[None, None, m : m + 1], base, start=m)[0, 0, 0]
            key = undo_rotation(keys[None, None, n : n + 1], base, start=n)[0, 0, 0]
            table = rotary_scores(query, key, 12, base=base, scale=attention.scale)
            assert table[m, n].item() == pytest.approx(scores[m, n].item(), abs=1e-5)
            assert offset_spread(table) < 1e-5
