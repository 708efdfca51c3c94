"""The peer of the benchmarks, `torch.nn.Transformer` with embeddings of the same shape, and a clock for both sides.

By itself this script prints only that both sides have about as many parameters.
"""

import math
import statistics
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from transformer.config import ModelConfig
from transformer.flat import FlatParameters
from transformer.loss import label_smoothed_loss
from transformer.model import Transformer
from transformer.optim import build_optimizer
from transformer.positions import sinusoidal
from transformer.vocabulary import BOS, EOS, PAD

# nn.Transformer says so of itself whenever it is pre-norm.
warnings.filterwarnings("ignore", message="enable_nested_tensor")

SHAPE = ModelConfig(
    source_size=3500, target_size=2900, d_model=192, num_heads=6, d_ff=768, encoder_layers=3, decoder_layers=3,
    norm="pre", dropout=0.1, attention_dropout=0.0, tied_embeddings="target", max_length=256,
)  # fmt: skip


class Peer(nn.Module):
    """`torch.nn.Transformer` as a plain loop would use it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model)
        self.source_embedding = nn.Embedding(config.source_size, config.d_model)
        self.target_embedding = nn.Embedding(config.target_size, config.d_model)
        self.transformer = nn.Transformer(
            config.d_model, config.num_heads, config.encoder_layers, config.decoder_layers, config.d_ff,
            config.dropout, batch_first=True, norm_first=config.norm == "pre",
        )  # fmt: skip
        self.register_buffer("positions", sinusoidal(config.max_length, config.d_model))

    def embed(self, ids: Tensor, embedding: nn.Embedding) -> Tensor:
        return embedding(ids) * self.scale + self.positions[: ids.shape[1]]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        hidden = self.transformer(
            self.embed(source, self.source_embedding),
            self.embed(target, self.target_embedding),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(target.shape[1]),
            tgt_is_causal=True,
            src_key_padding_mask=source == PAD,
            tgt_key_padding_mask=torch.zeros_like(target, dtype=torch.float32).masked_fill(
                target == PAD, -math.inf
            ),
            memory_key_padding_mask=source == PAD,
        )
        return hidden @ self.target_embedding.weight.T

    @torch.no_grad()
    def greedy(self, source: Tensor, steps: int) -> Tensor:
        """Write `steps` tokens, reading all of them again for each, as `nn.Transformer` without a cache must."""
        memory = self.transformer.encoder(self.embed(source, self.source_embedding))
        written = torch.full((len(source), 1), BOS)
        for _ in range(steps):
            mask = nn.Transformer.generate_square_subsequent_mask(written.shape[1])
            hidden = self.transformer.decoder(
                self.embed(written, self.target_embedding), memory, tgt_mask=mask, tgt_is_causal=True
            )
            logits = hidden[:, -1] @ self.target_embedding.weight.T
            logits[:, EOS] = -math.inf
            written = torch.cat([written, logits.argmax(-1, keepdim=True)], dim=1)
        return written


def random_batch(sentences: int, length: int, size: int = 2900) -> tuple[Tensor, Tensor]:
    """Random ids of sources and targets, without padding."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randint(4, size, (sentences, length), generator=generator) for _ in range(2))


def our_step(config: ModelConfig, source: Tensor, target: Tensor) -> Callable[[], None]:
    """A training step as `Trainer` takes it."""
    model = Transformer(config).train()
    weights = FlatParameters(model)
    optimizer = build_optimizer(weights, betas=(0.9, 0.98), epsilon=1e-9, weight_decay=0.02)
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    return step_of(model, source, target, weights.zero_gradients, weights.vectors, optimizer)


def their_step(config: ModelConfig, source: Tensor, target: Tensor) -> Callable[[], None]:
    """The same step as a plain loop around `torch.nn.Transformer` takes it, with the same optimiser."""
    model = Peer(config).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=1e-4, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.02, fused=True
    )
    return step_of(model, source, target, optimizer.zero_grad, parameters, optimizer)


def step_of(
    model: nn.Module,
    source: Tensor,
    target: Tensor,
    zero_gradients: Callable[[], None],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
) -> Callable[[], None]:
    def step() -> None:
        zero_gradients()
        label_smoothed_loss(model(source, target[:, :-1]), target[:, 1:], 0.1).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def median_seconds(
    *actions: Callable[[], object], rounds: int = 9, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median time of each action; they take turns, so that what else the machine does meets all alike."""
    for action in actions:
        action()
    times: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for action, taken in zip(actions, times, strict=True):
            began = clock()
            action()
            taken.append(clock() - began)
    return [statistics.median(taken) for taken in times]


if __name__ == "__main__":
    counts = [sum(p.numel() for p in model.parameters()) for model in (Transformer(SHAPE), Peer(SHAPE))]
    print(f"parameters: Headlight {counts[0]:,}, torch.nn.Transformer {counts[1]:,}")
