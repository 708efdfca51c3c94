"""What one head is worth: the probability of every target token with the head and without it.

Attention weights alone do not explain an answer (Jain and Wallace 2019; Wiegreffe and Pinter 2019). Taking a head out
of the same forward pass, the target held fast, says what it causes (as Voita et al. 2019 do for whole corpora).

Legend: B batch, S source length, T target length, H heads.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transformer.analysis.reading import MapName, module_name
from transformer.model import Transformer, token_log_probabilities
from transformer.trace import Edit, Trace
from transformer.vocabulary import BOS

Mode = Literal["zero", "uniform"]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Probabilities of T target tokens, each given the tokens before it.

    Attributes:
        before: With every head.
        after: Without the head.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def change(self) -> tuple[float, ...]:
        """What taking the head out adds to each probability."""
        return tuple(after - before for before, after in zip(self.before, self.after, strict=True))


@torch.inference_mode()
def ablate_head(
    model: Transformer,
    source_ids: Tensor,
    target_ids: Tensor,
    *,
    map: MapName,
    layer: int,
    head: int,
    mode: Mode,
) -> Ablation:
    """Take one head out of a forward pass.

    Args:
        model: The model, in evaluation mode; it is not changed.
        source_ids: The source with its EOS, (1, S).
        target_ids: What the decoder should predict, EOS last, (1, T).
        map: Which attention the head belongs to.
        layer: Its layer, from 0.
        head: Its number, from 0.
        mode: ``zero`` makes the head's output zero; ``uniform`` lets it attend evenly to all it may attend to.

    Raises:
        ValueError: If the model has no such layer or head.
    """
    layers = model.config.encoder_layers if map == "encoder" else model.config.decoder_layers
    if not (0 <= layer < layers and 0 <= head < model.config.num_heads):
        raise ValueError(f"The model has no head {head} in layer {layer} of its {map} attention.")
    decoder_ids = torch.cat([torch.full_like(target_ids[:, :1], BOS), target_ids[:, :-1]], dim=1)

    def probabilities(trace: Trace | None) -> tuple[float, ...]:
        logits = model(source_ids, decoder_ids, trace)
        return tuple(token_log_probabilities(logits, target_ids)[0].exp().tolist())

    without = Trace(keep=(), edits=edits_without(module_name(map, layer), head, mode))
    result = Ablation(before=probabilities(None), after=probabilities(without))
    without.check_edits_used()
    return result


def edits_without(module: str, head: int, mode: Mode) -> dict[str, Edit]:
    """The edits of a trace that take a head out of the attention named `module`."""
    if mode == "zero":

        def silence(head_outputs: Tensor) -> Tensor:
            return replace_head(head_outputs, head, torch.zeros_like(head_outputs[:, head]))

        return {f"{module}.head_outputs": silence}

    allowed: list[Tensor] = []

    def remember(mask: Tensor) -> Tensor:
        allowed.append(mask)
        return mask

    def attend_evenly(weights: Tensor) -> Tensor:
        mask = allowed[-1][:, head].to(weights.dtype)
        return replace_head(weights, head, mask / mask.sum(dim=-1, keepdim=True).clamp(min=1))

    return {f"{module}.mask": remember, f"{module}.weights": attend_evenly}


def replace_head(heads: Tensor, head: int, replacement: Tensor) -> Tensor:
    """A copy of (B, H, ...) with one head replaced."""
    copy = heads.clone()
    copy[:, head] = replacement
    return copy
