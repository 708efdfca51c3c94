"""Dot products that depend on the distance of two positions alone: sinusoids (section 3.5) and rotary positions.

Legend: T positions, B batch, H heads, K head width.
"""

import torch
from torch import Tensor

from transformer.positions import rotate


def offset_spread(products: Tensor) -> float:
    """How far a table of dot products (T, T) is from depending on the distance alone.

    Returns:
        The largest difference between two entries whose column is equally far from their row: 0 if the distance says
        everything.
    """
    size = products.shape[0]
    diagonals = (products.diagonal(offset) for offset in range(1 - size, size))
    return max((diagonal.max() - diagonal.min()).item() for diagonal in diagonals)


def undo_rotation(x: Tensor, base: float, *, start: int = 0) -> Tensor:
    """Turn rotated queries or keys (B, H, T, K) back: the inverse of `transformer.positions.rotate`."""
    mirror = torch.ones(x.shape[-1], dtype=x.dtype, device=x.device)
    mirror[1::2] = -1  # turning the mirror image forwards turns the vector itself backwards
    return rotate(x * mirror, base, start=start) * mirror


def rotary_scores(query: Tensor, key: Tensor, length: int, *, base: float, scale: float) -> Tensor:
    """Scores of one query and one key put at every two of `length` positions.

    Args:
        query: The query before it is turned, (K,).
        key: The key before it is turned, (K,).
        length: Number of positions T.
        base: Base of the rotary angles.
        scale: Factor on the dot product.

    Returns:
        Scores (T, T): row m and column n for the query at position m and the key at n.
    """
    queries = rotate(query.expand(1, 1, length, -1), base)[0, 0]  # (T, K)
    keys = rotate(key.expand(1, 1, length, -1), base)[0, 0]
    return queries @ keys.T * scale
