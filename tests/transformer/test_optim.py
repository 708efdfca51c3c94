"""Schedules against their closed forms, and the optimiser's groups."""

import math

import pytest
import torch

from transformer.flat import FlatParameters
from transformer.optim import build_optimizer, learning_rate


def rate(kind, step, **changes):
    settings = {"peak": 2e-3, "warmup_steps": 100, "total_steps": 1000, "d_model": 512, **changes}
    return learning_rate(kind, step, **settings)


@pytest.mark.parametrize("step", [1, 50, 99, 100, 101, 500, 100000])
def test_noam_is_the_paper_s_formula(step):
    expected = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
    assert rate("noam", step, peak=1.0, warmup_steps=4000) == pytest.approx(expected)
    assert rate("noam", step, peak=2.0, warmup_steps=4000) == pytest.approx(2 * expected)


def test_noam_peaks_at_the_end_of_the_warmup():
    rates = [rate("noam", step, peak=1.0, warmup_steps=40) for step in range(1, 200)]
    assert max(rates) == rates[39] == pytest.approx((512 * 40) ** -0.5)


@pytest.mark.parametrize("kind", ["inverse_sqrt", "cosine", "linear", "constant"])
def test_warmup_rises_linearly_to_the_peak(kind):
    for step in (1, 37, 99, 100):
        assert rate(kind, step) == pytest.approx(2e-3 * step / 100)
    assert rate(kind, 1, warmup_steps=0) == pytest.approx(2e-3, rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("inverse_sqrt", lambda step: 2e-3 * math.sqrt(100 / step)),
        ("cosine", lambda step: 1e-3 * (1 + math.cos(math.pi * (step - 100) / 900))),
        ("linear", lambda step: 2e-3 * (1000 - step) / 900),
        ("constant", lambda step: 2e-3),
    ],
)
def test_after_the_warmup(kind, expected):
    for step in (100, 101, 300, 550, 999, 1000):
        assert rate(kind, step) == pytest.approx(expected(step), abs=1e-12)


def test_no_schedule_is_ever_negative():
    for kind in ("noam", "inverse_sqrt", "cosine", "linear", "constant"):
        for settings in ({"warmup_steps": 0}, {"warmup_steps": 5000}, {"total_steps": 1, "warmup_steps": 1}):
            assert all(0 <= rate(kind, step, **settings) <= 1 for step in (1, 2, 999, 1000, 1001, 9999))


def test_weight_decay_shrinks_matrices_only():
    model = torch.nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.bias.fill_(1.0)
    weights = FlatParameters(model)
    optimizer = build_optimizer(weights, betas=(0.9, 0.98), epsilon=1e-9, weight_decay=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    weights.zero_gradients()
    optimizer.step()
    torch.testing.assert_close(model.weight, torch.full((3, 3), 1 - 0.5 * 0.1))
    torch.testing.assert_close(model.bias, torch.ones(3))


def test_the_step_is_adam_s_formula():
    model = torch.nn.Linear(2, 1, bias=False)
    start = model.weight.detach().clone()
    weights = FlatParameters(model)
    optimizer = build_optimizer(weights, betas=(0.9, 0.98), epsilon=1e-9, weight_decay=0.0)
    first, second, expected = torch.zeros(1, 2), torch.zeros(1, 2), start.clone()
    for step in range(1, 6):
        optimizer.param_groups[0]["lr"] = 0.01 * step
        gradient = torch.randn(1, 2)
        weights.zero_gradients()
        model.weight.grad.copy_(gradient)
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        expected = expected - 0.01 * step * (first / (1 - 0.9**step)) / (
            (second / (1 - 0.98**step)).sqrt() + 1e-9
        )
        torch.testing.assert_close(model.weight.detach(), expected, atol=1e-6, rtol=1e-5)
