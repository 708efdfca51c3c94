"""What a trained model does with one sentence pair: its tokens, its attention, and how sure it was.

Legend: S source length, T target length, L layers, H heads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from transformer.checkpoint import Checkpoint
from transformer.decode import beam_search, greedy
from transformer.model import token_log_probabilities
from transformer.trace import Edit, Trace
from transformer.vocabulary import BOS, EOS, Encoded

MapName = Literal["encoder", "decoder", "cross"]
MAP_NAMES: tuple[MapName, ...] = ("encoder", "decoder", "cross")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A source, the target that goes with it, and the tensors of the forward pass over both.

    Attributes:
        source: The source text in tokens; its ids end with EOS.
        target: The target in tokens; its ids are what the decoder should predict at each position.
        generated: Whether the model wrote the target; otherwise it was given.
        finished: Whether the target ends with EOS; a generated one may have been stopped at its greatest length.
        probabilities: Probability of each target token, given what stands before it.
        tensors: What the trace kept, by name, without the batch dimension.
    """

    source: Encoded
    target: Encoded
    generated: bool
    finished: bool
    probabilities: tuple[float, ...]
    tensors: Mapping[str, Tensor]

    @property
    def decoder_input(self) -> tuple[str, ...]:
        """The token that each decoder position reads: BOS, then the target without its last token."""
        return ("<bos>", *self.target.tokens[:-1])

    def weights(self, name: MapName) -> Tensor:
        """Attention weights of all layers and heads, (L, H, queries, keys)."""
        layers: list[Tensor] = []
        while (key := f"{module_name(name, len(layers))}.weights") in self.tensors:
            layers.append(self.tensors[key])
        return torch.stack(layers)

    def mask(self, name: MapName) -> Tensor:
        """Which keys each query may attend to, (queries, keys)."""
        weights = self.tensors[f"{module_name(name, 0)}.weights"]
        return self.tensors[f"{module_name(name, 0)}.mask"][0].expand(weights.shape[1:])


def module_name(name: MapName, layer: int) -> str:
    """The trace's name of the attention that draws a map in one layer."""
    stack, attention = {
        "encoder": ("encoder", "self_attention"),
        "decoder": ("decoder", "self_attention"),
        "cross": ("decoder", "cross_attention"),
    }[name]
    return f"{stack}.{layer}.{attention}"


class LengthError(ValueError):
    """A text has more tokens than allowed.

    Attributes:
        side: ``source`` or ``target``.
        length: Its tokens.
        limit: How many are allowed.
    """

    def __init__(self, side: Literal["source", "target"], length: int, limit: int) -> None:
        super().__init__(f"The {side} has {length} tokens; at most {limit} are allowed.")
        self.side = side
        self.length = length
        self.limit = limit


@torch.inference_mode()
def read(
    checkpoint: Checkpoint,
    source: str,
    target: str | None = None,
    *,
    beam: int = 1,
    limit: int | None = None,
    keep: str | Iterable[str] = "*",
    edits: Mapping[str, Edit] | None = None,
) -> Reading:
    """Read a source, write or take a target, and trace the forward pass over both.

    Args:
        checkpoint: The trained model.
        source: Text to read.
        target: Text to put in the decoder's mouth; by default the model writes one.
        beam: Hypotheses kept while writing; 1 takes the most probable token each time.
        limit: Most tokens of each text, without EOS; by default what the model can read.
        keep: Names of the tensors to record.
        edits: What to change in the recorded pass; the target is written without them.

    Raises:
        LengthError: If a text is too long.
        ValueError: If a text is empty.
    """
    limit = min(limit or checkpoint.model.config.max_length, checkpoint.model.config.max_length - 1)
    read_source = with_end(checkpoint.source_vocabulary.encode(source))
    require_length("source", read_source, limit)
    source_ids = torch.tensor([read_source.ids])
    if target is None:
        if beam == 1:
            hypothesis = greedy(checkpoint.model, source_ids, max_length=limit + 1)[0]
        else:
            hypothesis = beam_search(checkpoint.model, source_ids, beam_size=beam, max_length=limit + 1)[0][0]
        written, finished = checkpoint.target_vocabulary.spell(hypothesis.tokens), hypothesis.finished
    else:
        written, finished = with_end(checkpoint.target_vocabulary.encode(target)), True
        require_length("target", written, limit)
    target_ids = torch.tensor([written.ids])
    trace = Trace(keep=keep, edits=edits)
    logits = checkpoint.model(source_ids, torch.tensor([[BOS, *written.ids[:-1]]]), trace)
    trace.check_edits_used()
    return Reading(
        source=read_source,
        target=written,
        generated=target is None,
        finished=finished,
        probabilities=tuple(token_log_probabilities(logits, target_ids)[0].exp().tolist()),
        tensors={name: tensor[0] for name, tensor in trace.tensors.items()},
    )


def require_length(side: Literal["source", "target"], encoded: Encoded, limit: int) -> None:
    """Raise unless a text that ends with EOS has from 1 to `limit` tokens before it."""
    length = len(encoded.ids) - 1
    if length == 0:
        raise ValueError(f"The {side} is empty.")
    if length > limit:
        raise LengthError(side, length, limit)


def with_end(encoded: Encoded) -> Encoded:
    """The same tokens with EOS after them."""
    end = len(encoded.text)
    return Encoded(
        text=encoded.text,
        ids=(*encoded.ids, EOS),
        tokens=(*encoded.tokens, "<eos>"),
        offsets=(*encoded.offsets, (end, end)),
        words=(*encoded.words, encoded.words[-1] + 1 if encoded.words else 0),
        unknown=(*encoded.unknown, False),
    )
