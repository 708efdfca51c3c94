"""Attention (section 3.2): scaled dot-product, additive in its place, and many heads of either.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V
    MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O,  head_i = Attention(Q W^Q_i, K W^K_i, V W^V_i)

Two paths with one contract: `F.scaled_dot_product_attention` when nobody looks, the explicit path under a
trace. A row whose keys are all masked gives zeros, never NaN.

Legend: B batch, T query length, S key length, H heads, K head width d_k, D model width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.config import AttentionKind, ScaleKind
from transformer.trace import UNTRACED, Scope


def scale_factor(kind: ScaleKind, d_k: int) -> float:
    """The factor on the scores: 1/sqrt(d_k), 1 or 1/d_k."""
    return {"sqrt": 1.0 / math.sqrt(d_k), "none": 1.0, "linear": 1.0 / d_k}[kind]


def masked_softmax(scores_BHTS: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the keys that a query may attend to; a row without any gives zeros.

    Args:
        scores_BHTS: Scores (B, H, T, S).
        mask: Boolean, True = may attend, broadcastable to the scores; None allows everything.

    Returns:
        Weights (B, H, T, S): non-negative, 0 where masked, each row summing to 1 or all 0.
    """
    if mask is None:
        return scores_BHTS.softmax(dim=-1)
    # Not -inf: a row of -inf only gives NaN, and so would its gradient.
    lowest = torch.finfo(scores_BHTS.dtype).min
    return scores_BHTS.masked_fill(~mask, lowest).softmax(dim=-1).masked_fill(~mask, 0.0)


class MultiHeadAttention(nn.Module):
    """Multi-head attention with a projection each for queries, keys, values and output.

    Args:
        d_model: Width D of input and output.
        num_heads: Number of heads H; divides `d_model`.
        kind: `dot_product`, or `additive`: score = v^T tanh(W q + U k) per head, where W and U are the query and
            key projections (Bahdanau et al. 2015).
        scale: Factor on dot-product scores.
        dropout: Dropout of the attention weights while training.
    """

    def __init__(
        self, *, d_model: int, num_heads: int, kind: AttentionKind, scale: ScaleKind, dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.d_k = d_model // num_heads
        self.dropout = dropout
        self.query_projection = nn.Linear(d_model, d_model)
        self.key_projection = nn.Linear(d_model, d_model)
        self.value_projection = nn.Linear(d_model, d_model)
        self.output_projection = nn.Linear(d_model, d_model)
        self.scale = scale_factor(scale, self.d_k)
        self.additive_vector = nn.Parameter(torch.empty(num_heads, self.d_k)) if kind == "additive" else None

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.d_k)).transpose(1, 2)  # (B, H, T, K)

    def queries(self, x: Tensor) -> Tensor:
        """Project (B, T, D) to queries (B, H, T, K)."""
        return self._split(self.query_projection(x))

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project (B, S, D) to keys and values, each (B, H, S, K)."""
        return self._split(self.key_projection(x)), self._split(self.value_projection(x))

    def scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """How well each query fits each key, scale included: (B, H, T, S)."""
        if self.additive_vector is None:
            return (queries @ keys.transpose(-2, -1)) * self.scale
        hidden = torch.tanh(queries[..., :, None, :] + keys[..., None, :, :])  # (B, H, T, S, K)
        return torch.einsum("bhtsk,hk->bhts", hidden, self.additive_vector)

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        mask: Tensor | None,
        bias: Tensor | None = None,
        scope: Scope = UNTRACED,
    ) -> Tensor:
        """Attend with queries, keys and values that are already projected.

        Args:
            queries: (B, H, T, K).
            keys: (B, H, S, K).
            values: (B, H, S, K).
            mask: Boolean, True = may attend, broadcastable to (B, H, T, S); None allows everything.
            bias: Added to the scores before the softmax, broadcastable to (B, H, T, S).
            scope: Where the trace finds this attention.

        Returns:
            (B, T, D).
        """
        dropout = self.dropout if self.training else 0.0
        if self.additive_vector is None and not scope.active:
            allowed = mask
            if bias is not None:
                allowed = bias if mask is None else torch.where(mask, bias, -math.inf)
            heads = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=allowed, dropout_p=dropout, scale=self.scale
            )
        else:
            queries = scope("queries", queries)
            keys = scope("keys", keys)
            values = scope("values", values)
            scores = scope("scores", self.scores(queries, keys))
            if bias is not None:
                scores = scores + scope("position_bias", bias.expand_as(scores))
            if mask is not None:
                mask = scope("mask", mask.expand_as(scores))
            weights = scope("weights", masked_softmax(scores, mask))
            heads = F.dropout(weights, dropout) @ values
        heads = scope("head_outputs", heads)
        return self.output_projection(heads.transpose(1, 2).flatten(2))
