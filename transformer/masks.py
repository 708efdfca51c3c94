"""Masks: which query may attend to which key (section 3.2.3).

A boolean mask's True means "may attend", everywhere. Masks broadcast to (B, H, T, S).

Legend: B batch, S source length, T target length, H heads.
"""

import torch
from torch import Tensor

from transformer.vocabulary import PAD


def padding_mask(ids: Tensor) -> Tensor:
    """Allow every key that is a real token.

    Args:
        ids: Token ids (B, S).

    Returns:
        Boolean mask (B, 1, 1, S).
    """
    return (ids != PAD)[:, None, None, :]


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """Allow a query to attend to itself and to what stands before it.

    With fewer queries than keys the queries are the last ones, as when decoding with a cache.

    Returns:
        Boolean mask (1, 1, queries, keys).
    """
    query_positions = torch.arange(keys - queries, keys, device=device)
    return (torch.arange(keys, device=device) <= query_positions[:, None])[None, None]
