"""Encoder and decoder layers: sub-layers wrapped in residual connection and layer norm (section 3.1).

    post-norm (the paper)   x <- LayerNorm(x + Dropout(f(x)))
    pre-norm                x <- x + Dropout(f(LayerNorm(x)))          (Xiong et al. 2020)
    DeepNorm                x <- LayerNorm(alpha x + Dropout(f(x)))    (Wang et al. 2022)

Two experiments take a part away: without norm x <- x + Dropout(f(x)), and without residual the same without the x.

Legend: B batch, S source length, T target length, D model width.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from transformer.attention import MultiHeadAttention
from transformer.cache import LayerCache
from transformer.config import ModelConfig, NormKind
from transformer.feed_forward import FeedForward
from transformer.positions import alibi_bias, alibi_slopes, rotate
from transformer.trace import UNTRACED, Scope


@dataclass(frozen=True, kw_only=True)
class DeepNormConstants:
    """How DeepNorm scales the residual (`alpha`) and the initial weights (`beta`) of each stack."""

    encoder_alpha: float
    encoder_beta: float
    decoder_alpha: float
    decoder_beta: float


def deepnorm_constants(encoder_layers: int, decoder_layers: int) -> DeepNormConstants:
    """The constants of Wang et al. 2022, figure 2, for N encoder and M decoder layers."""
    n, m = max(encoder_layers, 1), max(decoder_layers, 1)
    if decoder_layers == 0:
        encoder_alpha, encoder_beta = (2 * n) ** 0.25, (8 * n) ** -0.25
    else:
        encoder_alpha, encoder_beta = 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)
    decoder = m if encoder_layers == 0 else 1.5 * m
    return DeepNormConstants(
        encoder_alpha=encoder_alpha,
        encoder_beta=encoder_beta,
        decoder_alpha=(2 * decoder) ** 0.25,
        decoder_beta=(8 * decoder) ** -0.25,
    )


class AddAndNorm(nn.Module):
    """Residual connection, dropout and layer norm around one sub-layer.

    Args:
        d_model: Width D.
        kind: Where the norm stands.
        residual: Whether the stream goes past the sub-layer; else the sub-layer's output takes its place.
        dropout: Dropout of the sub-layer's output.
        alpha: Weight of the residual under DeepNorm.
    """

    def __init__(self, *, d_model: int, kind: NormKind, residual: bool, dropout: float, alpha: float) -> None:
        super().__init__()
        self.kind = kind
        self.residual = residual
        self.alpha = alpha
        self.norm = nn.Identity() if kind == "none" else nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, sub_layer: Callable[[Tensor], Tensor], scope: Scope = UNTRACED) -> Tensor:
        """Map the residual stream (B, T, D) past one sub-layer."""
        x = scope("residual_before", x)
        inner = self.norm(x) if self.kind == "pre" else x
        after = self.dropout(scope("output", sub_layer(inner)))
        if self.residual:
            after = (self.alpha * x if self.kind == "deepnorm" else x) + after
        if self.kind in ("post", "deepnorm"):
            after = self.norm(after)
        return scope("residual_after", after)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself, with the positions that act inside attention.

    Args:
        config: Shape and variant.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = build_attention(config)
        self.rotary_base = config.position_base if config.positions == "rotary" else None
        self.slopes: Tensor | None
        if config.positions == "alibi":
            self.register_buffer("slopes", alibi_slopes(config.num_heads), persistent=False)
        else:
            self.slopes = None

    def forward(
        self, x: Tensor, mask: Tensor | None, scope: Scope = UNTRACED, cache: LayerCache | None = None
    ) -> Tensor:
        """Attend (B, T, D) to itself, and with a cache to everything that was cached before.

        Args:
            x: What the queries, keys and values are projected from.
            mask: Boolean mask broadcastable to (B, H, T, S), S the number of keys with those in the cache.
            scope: Where the trace finds this attention.
            cache: Keys and values of the positions before `x`; those of `x` are added to it.
        """
        start = 0 if cache is None else cache.length
        queries = self.attention.queries(x)
        keys, values = self.attention.keys_and_values(x)
        if self.rotary_base is not None:
            queries = rotate(queries, self.rotary_base, start=start)
            keys = rotate(keys, self.rotary_base, start=start)
        if cache is not None:
            keys, values = cache.append(keys, values)
        bias = None if self.slopes is None else alibi_bias(self.slopes, queries.shape[2], keys.shape[2])
        return self.attention.attend(queries, keys, values, mask=mask, bias=bias, scope=scope)


def build_attention(config: ModelConfig) -> MultiHeadAttention:
    """The multi-head attention that `config` asks for."""
    return MultiHeadAttention(
        d_model=config.d_model,
        num_heads=config.num_heads,
        kind=config.attention,
        scale=config.scale,
        dropout=config.attention_dropout,
    )


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward.

    Args:
        config: Shape and variant.
        alpha: Weight of the residual under DeepNorm.
    """

    def __init__(self, config: ModelConfig, *, alpha: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.feed_forward = FeedForward(d_model=config.d_model, d_ff=config.d_ff)
        self.self_attention_add_norm = build_add_and_norm(config, alpha)
        self.feed_forward_add_norm = build_add_and_norm(config, alpha)

    def forward(self, x: Tensor, mask: Tensor | None, scope: Scope = UNTRACED) -> Tensor:
        """Map (B, S, D) to (B, S, D); `mask` is (B, 1, 1, S), or None if all may be attended to."""
        inside = scope.within("self_attention")
        x = self.self_attention_add_norm(x, lambda y: self.self_attention(y, mask, inside), inside)
        inside = scope.within("feed_forward")
        return self.feed_forward_add_norm(x, lambda y: self.feed_forward(y, inside), inside)


class DecoderLayer(nn.Module):
    """Masked self-attention, then attention to the encoder's output, then feed-forward.

    Args:
        config: Shape and variant.
        alpha: Weight of the residual under DeepNorm.
    """

    def __init__(self, config: ModelConfig, *, alpha: float) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.cross_attention = build_attention(config)
        self.feed_forward = FeedForward(d_model=config.d_model, d_ff=config.d_ff)
        self.self_attention_add_norm = build_add_and_norm(config, alpha)
        self.cross_attention_add_norm = build_add_and_norm(config, alpha)
        self.feed_forward_add_norm = build_add_and_norm(config, alpha)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor],
        *,
        mask: Tensor,
        memory_mask: Tensor | None,
        scope: Scope = UNTRACED,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D).

        Args:
            x: Residual stream of the target positions.
            memory: This layer's keys and values of the encoder's output, each (B, H, S, K).
            mask: Mask of the self-attention, broadcastable to (B, H, T, T).
            memory_mask: Mask of the encoder's positions, (B, 1, 1, S), or None if all may be attended to.
            scope: Where the trace finds this layer.
            cache: Self-attention keys and values of earlier positions.
        """
        inside = scope.within("self_attention")
        x = self.self_attention_add_norm(x, lambda y: self.self_attention(y, mask, inside, cache), inside)
        inside = scope.within("cross_attention")

        def cross(y: Tensor) -> Tensor:
            queries = self.cross_attention.queries(y)
            return self.cross_attention.attend(queries, *memory, mask=memory_mask, scope=inside)

        x = self.cross_attention_add_norm(x, cross, inside)
        inside = scope.within("feed_forward")
        return self.feed_forward_add_norm(x, lambda y: self.feed_forward(y, inside), inside)


def build_add_and_norm(config: ModelConfig, alpha: float) -> AddAndNorm:
    """The wrapper that `config` asks for around a sub-layer."""
    return AddAndNorm(
        d_model=config.d_model,
        kind=config.norm,
        residual=config.residual,
        dropout=config.dropout,
        alpha=alpha,
    )
