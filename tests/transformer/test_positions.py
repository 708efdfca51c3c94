"""Positional encodings against the closed forms of the papers."""

import math

import numpy as np
import pytest
import torch

from transformer.positions import alibi_bias, alibi_slopes, offset_rotation, rotate, sinusoidal


@pytest.mark.parametrize(
    ("length", "d_model", "base"), [(50, 16, 10000.0), (7, 5, 100.0), (200, 512, 10000.0)]
)
def test_sinusoids_are_the_paper_s(length, d_model, base):
    expected = np.zeros((length, d_model))
    for position in range(length):
        for column in range(d_model):
            angle = position / base ** (2 * (column // 2) / d_model)
            expected[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    np.testing.assert_allclose(sinusoidal(length, d_model, base).numpy(), expected, atol=1e-6)


def test_sinusoids_from_a_later_start():
    torch.testing.assert_close(sinusoidal(10, 8)[6:], sinusoidal(4, 8, start=6))


@pytest.mark.parametrize("offset", [1, 5, -3, 40])
def test_an_offset_is_a_rotation(offset):
    table = sinusoidal(100, 32).double()
    rotation = offset_rotation(offset, 32).double()
    positions = torch.arange(45, 55)
    torch.testing.assert_close(table[positions] @ rotation.T, table[positions + offset], atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(32).double(), atol=1e-6, rtol=0)
    assert torch.linalg.det(rotation).item() == pytest.approx(1.0, abs=1e-5)


def test_a_rotation_needs_an_even_width():
    with pytest.raises(ValueError, match="d_model is 5"):
        offset_rotation(1, 5)


def test_rotary_turns_each_pair_by_its_angle():
    x = torch.randn(1, 2, 9, 6)
    turned = rotate(x, 100.0)
    for position in range(9):
        for i in range(3):
            pair = torch.view_as_complex(x[..., position, 2 * i : 2 * i + 2].contiguous())
            expected = pair * complex(
                math.cos(position * 100 ** (-i / 3)), math.sin(position * 100 ** (-i / 3))
            )
            got = torch.view_as_complex(turned[..., position, 2 * i : 2 * i + 2].contiguous())
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_rotary_positions_first_used_while_evaluating_can_be_trained_with():
    x = torch.randn(1, 1, 5, 4)
    with torch.inference_mode():
        rotate(x, 123.0, start=7)
    turned = rotate(x.requires_grad_(), 123.0, start=7)
    direction = torch.randn_like(turned)
    (turned * direction).sum().backward()
    # The gradient of a rotation is turned back by it.
    torch.testing.assert_close(rotate(x.grad, 123.0, start=7), direction)


def test_rotary_scores_depend_on_the_distance_only():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(query_position, key_position):
        return (rotate(q, start=query_position) * rotate(k, start=key_position)).sum()

    torch.testing.assert_close(score(3, 1), score(23, 21), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(score(0, 7), score(50, 57), atol=1e-5, rtol=1e-5)
    assert not torch.isclose(score(3, 1), score(3, 2))
    torch.testing.assert_close(rotate(q, start=11).norm(), q.norm())


def test_alibi_slopes_are_the_published_ones():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(16).tolist() == pytest.approx([2 ** (-0.5 * i) for i in range(1, 17)])
    # Not a power of two: the 8 slopes of 8 heads, then the 1st, 3rd, 5th and 7th of 16 heads.
    assert alibi_slopes(12).tolist() == pytest.approx(
        [2.0**-i for i in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    )
    assert alibi_slopes(1).tolist() == [2.0**-8]


def test_alibi_bias_is_the_negative_distance_times_the_slope():
    bias = alibi_bias(torch.tensor([0.5, 0.25]), 3, 3)
    assert bias.shape == (1, 2, 3, 3)
    assert bias[0, 0].tolist() == [[0, -0.5, -1], [-0.5, 0, -0.5], [-1, -0.5, 0]]
    torch.testing.assert_close(alibi_bias(torch.tensor([0.5, 0.25]), 1, 3), bias[:, :, 2:])
