"""Positional encodings: how a model that sees a set is told the order (section 3.5).

Sinusoidal (the paper):

    PE(pos, 2i)   = sin(pos / base^(2i / d_model))
    PE(pos, 2i+1) = cos(pos / base^(2i / d_model))

PE(pos + k) is PE(pos) turned by a rotation that depends on k alone (`offset_rotation`). Beside it: a learned
table (Gehring et al. 2017), rotary positions (Su et al. 2021) and ALiBi (Press et al. 2022).

Legend: T length, S key length, D model width, H heads, K head width.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from transformer.config import PositionKind


def angular_frequencies(width: int, base: float = 10000.0, device: torch.device | None = None) -> Tensor:
    """Angle per position of each sine and cosine pair: base^(-2i / width) radians, shape (ceil(width / 2),)."""
    exponents = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    return base**-exponents


def sinusoidal(length: int, d_model: int, base: float = 10000.0, *, start: int = 0) -> Tensor:
    """The paper's table of sinusoids for positions start .. start + length - 1.

    Args:
        length: Number of positions T.
        d_model: Width D; an odd width ends on a sine.
        base: Ratio of the longest to the shortest wavelength (10000 in the paper).
        start: First position.

    Returns:
        Float tensor (T, D), sines in the even columns and cosines in the odd ones, all in [-1, 1].
    """
    positions = torch.arange(start, start + length, dtype=torch.float64)
    angles = positions[:, None] * angular_frequencies(d_model, base)  # (T, ceil(D / 2))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :d_model].float()


def offset_rotation(offset: int, d_model: int, base: float = 10000.0) -> Tensor:
    """The matrix M of size (D, D) with PE(pos + offset) = M PE(pos) for every pos: a rotation of each pair.

    Raises:
        ValueError: If `d_model` is odd: the last sine would have no cosine to turn with.
    """
    if d_model % 2:
        raise ValueError(f"d_model is {d_model}; a rotation of pairs needs an even d_model.")
    angles = offset * angular_frequencies(d_model, base)
    sin, cos = angles.sin(), angles.cos()
    # sin(a + b) = cos b sin a + sin b cos a;  cos(a + b) = -sin b sin a + cos b cos a
    blocks = torch.stack((torch.stack((cos, sin), -1), torch.stack((-sin, cos), -1)), -2)  # (D / 2, 2, 2)
    return torch.block_diag(*blocks).float()


def rotate(x: Tensor, base: float = 10000.0, *, start: int = 0) -> Tensor:
    """Turn each pair of dimensions (2i, 2i + 1) by its position times its frequency: rotary positions.

    A dot product of two vectors so turned depends only on the distance of their positions.

    Args:
        x: Queries or keys (B, H, T, K), K even.
        base: Base of the frequencies.
        start: Position of the first row.

    Returns:
        Tensor of the same shape.
    """
    turns = unit_turns(x.shape[-2], x.shape[-1], base, start, x.dtype.to_complex(), x.device)
    # A pair is a complex number, and turning it by an angle is one multiplication by e^(i angle).
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns).flatten(-2)


@lru_cache(maxsize=256)
def unit_turns(
    length: int, width: int, base: float, start: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The complex numbers e^(i angle) of each position and pair, (T, K / 2); every layer needs the same."""
    with torch.inference_mode(False):  # such a tensor could not take part in a later training
        positions = torch.arange(start, start + length, dtype=torch.float64, device=device)
        angles = positions[:, None] * angular_frequencies(width, base, device)
        return torch.polar(torch.ones_like(angles), angles).to(dtype)


def alibi_slopes(num_heads: int) -> Tensor:
    """Slope of each head, shape (H,): 2^(-8/H), 2^(-16/H), ... as in Press et al. 2022 for H a power of two.

    For other H the slopes of the next lower power of two come first, then every second slope of the next
    higher one, as in the authors' code.
    """

    def of_power(count: int) -> list[float]:
        return [2.0 ** (-8.0 * (i + 1) / count) for i in range(count)]

    power = 2 ** math.floor(math.log2(num_heads))
    return torch.tensor(of_power(power) + of_power(2 * power)[0::2][: num_heads - power])


def alibi_bias(slopes: Tensor, queries: int, keys: int) -> Tensor:
    """Penalty added to the scores, -slope x distance, shape (1, H, queries, keys).

    With fewer queries than keys the queries are the last ones. The distance is symmetric, so the encoder's
    bias is the same in both directions.
    """
    query_positions = torch.arange(keys - queries, keys, device=slopes.device)
    distance = (query_positions[:, None] - torch.arange(keys, device=slopes.device)).abs()
    return -slopes[None, :, None, None] * distance


class AddedPositions(nn.Module):
    """Positions that are added to the embeddings: the sinusoids, a learned table, or nothing.

    Args:
        kind: Rotary and ALiBi act inside attention, so for them nothing is added here.
        d_model: Width D.
        max_length: Rows of the learned table.
        base: Base of the sinusoids.
    """

    def __init__(self, *, kind: PositionKind, d_model: int, max_length: int, base: float) -> None:
        super().__init__()
        self.table: Tensor | None
        if kind == "learned":
            self.table = nn.Parameter(torch.empty(max_length, d_model))
        elif kind == "sinusoidal":
            self.register_buffer("table", sinusoidal(max_length, d_model, base), persistent=False)
        else:
            self.table = None

    def forward(self, length: int, *, start: int = 0) -> Tensor | None:
        """The encodings of positions start .. start + length - 1, (1, T, D), or None where nothing is added."""
        return None if self.table is None else self.table[None, start : start + length]
