"""The Transformer: encoder, decoder, embeddings and output projection (sections 3.1, 3.4, figure 1).

Legend: B batch, S source length, T target length, H heads, K head width, D model width, V vocabulary.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transformer.cache import DecoderCache, LayerCache
from transformer.config import ModelConfig
from transformer.layers import DecoderLayer, EncoderLayer, deepnorm_constants
from transformer.masks import causal_mask, padding_mask
from transformer.positions import AddedPositions
from transformer.trace import UNTRACED, Scope, Trace
from transformer.vocabulary import PAD


class Transformer(nn.Module):
    """Encoder–decoder Transformer. Initialised by `init_parameters` under torch's current seed.

    Args:
        config: Shape and variant.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        constants = deepnorm_constants(config.encoder_layers, config.decoder_layers)
        self.source_embedding = nn.Embedding(config.source_size, config.d_model, padding_idx=PAD)
        self.target_embedding = nn.Embedding(config.target_size, config.d_model, padding_idx=PAD)
        self.output_projection = nn.Linear(config.d_model, config.target_size, bias=False)
        if config.tied_embeddings != "none":
            self.output_projection.weight = self.target_embedding.weight
        if config.tied_embeddings == "all":
            self.source_embedding.weight = self.target_embedding.weight
        self.source_positions = build_positions(config)
        self.target_positions = build_positions(config)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(
            EncoderLayer(config, alpha=constants.encoder_alpha) for _ in range(config.encoder_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(config, alpha=constants.decoder_alpha) for _ in range(config.decoder_layers)
        )
        # A pre-norm stream is never normalised on its way, so each stack ends with a norm of its own.
        final_norm = config.norm == "pre"
        self.encoder_norm = nn.LayerNorm(config.d_model) if final_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(config.d_model) if final_norm else nn.Identity()
        init_parameters(self)

    def _embed(
        self, ids: Tensor, embedding: nn.Embedding, positions: AddedPositions, scope: Scope, start: int = 0
    ) -> Tensor:
        if start + ids.shape[1] > self.config.max_length:
            raise ValueError(
                f"The sequence has {start + ids.shape[1]} tokens; this model reads at most "
                f"{self.config.max_length}."
            )
        x = scope("embeddings", embedding(ids) * math.sqrt(self.config.d_model))
        added = positions(ids.shape[1], start=start)
        if added is not None:
            x = x + scope("positions", added.expand_as(x))
        return self.dropout(x)

    def encode(self, source_ids: Tensor, trace: Trace | None = None) -> Tensor:
        """Read the source: ids (B, S) to representations (B, S, D).

        Raises:
            ValueError: If the source is longer than ``config.max_length``.
        """
        scope = Scope(trace).within("encoder")
        mask = only_if_needed(padding_mask(source_ids), scope)
        x = self._embed(source_ids, self.source_embedding, self.source_positions, scope)
        for index, layer in enumerate(self.encoder):
            x = layer(x, mask, scope.within(str(index)))
        return scope("output", self.encoder_norm(x))

    def _memory(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        layers = [cast(DecoderLayer, layer) for layer in self.decoder]
        return [layer.cross_attention.keys_and_values(encoded) for layer in layers]

    def _decode(
        self,
        target_ids: Tensor,
        memory: list[tuple[Tensor, Tensor]],
        memory_mask: Tensor | None,
        *,
        scope: Scope = UNTRACED,
        caches: list[LayerCache] | None = None,
        start: int = 0,
    ) -> Tensor:
        length = target_ids.shape[1]
        if caches is None:
            mask = padding_mask(target_ids)
            if self.config.causal:
                mask = mask & causal_mask(length, length, target_ids.device)
        else:
            mask = causal_mask(length, start + length, target_ids.device)
        x = self._embed(target_ids, self.target_embedding, self.target_positions, scope, start)
        for index, layer in enumerate(self.decoder):
            x = layer(
                x,
                memory[index],
                mask=mask,
                memory_mask=memory_mask,
                scope=scope.within(str(index)),
                cache=None if caches is None else caches[index],
            )
        return scope("output", self.decoder_norm(x))

    def decode(
        self, target_ids: Tensor, encoded: Tensor, source_ids: Tensor, trace: Trace | None = None
    ) -> Tensor:
        """Predict the token after each target position.

        Args:
            target_ids: What the decoder reads, (B, T), beginning with BOS.
            encoded: The encoder's output (B, S, D).
            source_ids: The ids it was computed from (B, S); they tell which positions are padding.
            trace: What to record and edit.

        Returns:
            Logits (B, T, V).
        """
        scope = Scope(trace)
        memory_mask = only_if_needed(padding_mask(source_ids), scope)
        x = self._decode(target_ids, self._memory(encoded), memory_mask, scope=scope.within("decoder"))
        return scope("logits", self.output_projection(x))

    def forward(self, source_ids: Tensor, target_ids: Tensor, trace: Trace | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each target position.

        Args:
            source_ids: (B, S), padded at the end with PAD.
            target_ids: (B, T), beginning with BOS, padded at the end with PAD.
            trace: What to record and edit.

        Raises:
            ValueError: If a sequence is longer than ``config.max_length``.
        """
        return self.decode(target_ids, self.encode(source_ids, trace), source_ids, trace)

    def start(self, source_ids: Tensor, capacity: int) -> DecoderCache:
        """Read the source (N, S) and prepare to decode up to `capacity` positions."""
        encoded = self.encode(source_ids)
        rows = source_ids.shape[0]
        return DecoderCache(
            layers=[
                LayerCache(rows, self.config.num_heads, capacity, self.config.d_k, like=encoded)
                for _ in self.decoder
            ],
            memory=self._memory(encoded),
            memory_mask=padding_mask(source_ids),
            tokens=source_ids.new_empty(rows, 0),
        )

    def step(self, tokens: Tensor, state: DecoderCache) -> Tensor:
        """Read one more token (N,) of each hypothesis; returns the logits (N, V) of the next."""
        start = state.tokens.shape[1]
        state.read(tokens)
        if self.config.causal:
            x = self._decode(
                tokens[:, None], state.memory, state.memory_mask, caches=state.layers, start=start
            )
        else:
            # Without the causal mask every earlier position changes with each new token: nothing can be cached.
            x = self._decode(state.tokens, state.memory, state.memory_mask)
        return self.output_projection(x[:, -1])

    def num_parameters(self) -> int:
        """Trainable parameters, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


def only_if_needed(mask: Tensor, scope: Scope) -> Tensor | None:
    """The mask, or None if it allows everything and nobody looks: attention without a mask takes less time.

    Batches are made of sentences of about one length, so this is often so.
    """
    return mask if scope.active or not mask.all() else None


def build_positions(config: ModelConfig) -> AddedPositions:
    """The positions that `config` adds to the embeddings of one side."""
    return AddedPositions(
        kind=config.positions,
        d_model=config.d_model,
        max_length=config.max_length,
        base=config.position_base,
    )


def init_parameters(model: Transformer) -> None:
    """Give every parameter its initial value, in place, under torch's current seed.

    =============================================  =====================================================
    parameter                                      initial value
    =============================================  =====================================================
    projections of queries, keys, values, output   Xavier uniform, each on its own; DeepNorm: values and
                                                   output times beta
    feed-forward matrices                          Xavier uniform; DeepNorm: times beta
    embeddings, output projection                  normal, standard deviation 1/sqrt(d_model); PAD zero
    learned positions                              normal, standard deviation 0.02
    additive attention's vector                    uniform in +-1/sqrt(d_k)
    biases                                         0
    layer norm                                     gain 1, bias 0
    =============================================  =====================================================

    Source: Glorot and Bengio 2010; the paper does not say. torch's `nn.MultiheadAttention` packs queries, keys and
    values into one matrix before Xavier, which makes each smaller than here by sqrt(2).
    """
    config = model.config
    constants = deepnorm_constants(config.encoder_layers, config.decoder_layers)
    betas = (constants.encoder_beta, constants.decoder_beta) if config.norm == "deepnorm" else (1.0, 1.0)
    for stack, beta in zip((model.encoder, model.decoder), betas, strict=True):
        for name, parameter in stack.named_parameters():
            if parameter.dim() < 2:
                continue  # biases and norms are set below
            if name.endswith("additive_vector"):
                nn.init.uniform_(parameter, -(config.d_k**-0.5), config.d_k**-0.5)
                continue
            scaled = ("value_projection", "output_projection", "widen", "narrow")
            nn.init.xavier_uniform_(parameter, gain=beta if any(part in name for part in scaled) else 1.0)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=config.d_model**-0.5)
        elif isinstance(module, AddedPositions) and isinstance(module.table, nn.Parameter):
            nn.init.normal_(module.table, std=0.02)
        elif isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    if config.tied_embeddings == "none":
        nn.init.normal_(model.output_projection.weight, std=config.d_model**-0.5)
    with torch.no_grad():
        model.source_embedding.weight[PAD].zero_()
        model.target_embedding.weight[PAD].zero_()


def token_log_probabilities(logits: Tensor, target_ids: Tensor) -> Tensor:
    """Log probability of each target token: logits (B, T, V), ids (B, T) to (B, T)."""
    return -F.cross_entropy(logits.flatten(0, 1), target_ids.flatten(), reduction="none").unflatten(
        0, target_ids.shape
    )
