"""Decoding: from a source to the tokens of a target, one at a time (sections 3.1 and 6.1).

Pure functions over a protocol of two calls, `start` and `step`, so that every sequence model can be decoded the same
way. Finished hypotheses leave the batch, so that a step only computes what is still open.

Legend: B sentences, N hypotheses (rows), k beam size, V vocabulary, S source length.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from transformer.vocabulary import BOS, EOS, PAD, UNK

# What a decoder must not write: padding, a second beginning, or a token that stands for no text.
FORBIDDEN = (PAD, BOS, UNK)


class State(Protocol):
    """What a model keeps between two steps."""

    def select(self, rows: Tensor) -> None:
        """Keep the hypotheses `rows` (M,), in this order; a row may be kept several times."""
        ...


class StepModel(Protocol):
    """A model that can be decoded."""

    def start(self, source_ids: Tensor, capacity: int) -> Any:
        """Read the source (N, S) and prepare a `State` for up to `capacity` positions."""
        ...

    def step(self, tokens: Tensor, state: Any) -> Tensor:
        """Read one more token (N,) of each hypothesis; returns the logits (N, V) of the next."""
        ...


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A decoded target.

    Attributes:
        tokens: Token ids without BOS; ends with EOS if `finished`.
        log_probability: Sum of the log probabilities of `tokens`, in nats.
        finished: Whether the model wrote EOS within the greatest length.
    """

    tokens: tuple[int, ...]
    log_probability: float
    finished: bool


@torch.no_grad()
def greedy(model: StepModel, source_ids: Tensor, *, max_length: int) -> list[Hypothesis]:
    """Write the most probable token at each step.

    Args:
        model: What to decode.
        source_ids: (B, S), padded at the end.
        max_length: Most tokens of a target, EOS included.

    Returns:
        One hypothesis for each source.
    """
    return _decode_one_each(
        model, source_ids, max_length, lambda log_probabilities: log_probabilities.argmax(dim=-1)
    )


@torch.no_grad()
def sample(
    model: StepModel,
    source_ids: Tensor,
    *,
    max_length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> list[Hypothesis]:
    """Draw each token from the model's distribution.

    Args:
        model: What to decode.
        source_ids: (B, S), padded at the end.
        max_length: Most tokens of a target, EOS included.
        temperature: Divides the logits; below 1 sharper, above 1 flatter.
        top_k: Draw among the k most probable tokens only.
        top_p: Draw among the most probable tokens that together reach this probability (Holtzman et al. 2020).
        generator: Source of randomness; torch's own by default.

    Raises:
        ValueError: If a setting is out of range.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be greater than 0.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be at least 1.")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must be greater than 0 and at most 1.")

    def draw(log_probabilities: Tensor) -> Tensor:
        probabilities = (log_probabilities / temperature).softmax(dim=-1)
        ranked, order = probabilities.sort(dim=-1, descending=True)
        if top_k is not None:
            ranked[:, top_k:] = 0.0
        if top_p is not None:
            # A token stays if those before it have not yet reached top_p, so the first always stays.
            ranked = ranked.masked_fill(ranked.cumsum(dim=-1) - ranked >= top_p, 0.0)
        drawn = torch.multinomial(ranked, 1, generator=generator)
        return order.gather(-1, drawn).squeeze(-1)

    return _decode_one_each(model, source_ids, max_length, draw)


def length_penalty(length: int, alpha: float) -> float:
    """What a hypothesis's log probability is divided by: ((5 + length) / 6)^alpha (Wu et al. 2016)."""
    return ((5.0 + length) / 6.0) ** alpha


@torch.no_grad()
def beam_search(
    model: StepModel, source_ids: Tensor, *, max_length: int, beam_size: int = 4, alpha: float = 0.6
) -> list[list[Hypothesis]]:
    """Keep the `beam_size` most probable beginnings at each step (section 6.1: beam 4, alpha 0.6).

    A sentence is done when `beam_size` hypotheses are finished, or when no open one can still beat the best
    finished one.

    Args:
        model: What to decode.
        source_ids: (B, S), padded at the end.
        max_length: Most tokens of a target, EOS included.
        beam_size: k; 1 is greedy decoding.
        alpha: Strength of the length penalty; 0 for none.

    Returns:
        For each source up to k hypotheses, best first by log probability over length penalty; a hypothesis that
        reached `max_length` without EOS comes after all finished ones.

    Raises:
        ValueError: If `beam_size` is less than 1 or `alpha` negative.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size is {beam_size}; it must be at least 1.")
    if alpha < 0:
        raise ValueError(f"alpha is {alpha}; it must be at least 0.")
    sentences = source_ids.shape[0]
    state = model.start(source_ids, max_length)
    state.select(torch.arange(sentences).repeat_interleave(beam_size))
    finished: list[list[Hypothesis]] = [[] for _ in range(sentences)]
    open_sentences = torch.arange(sentences)
    scores = torch.full((sentences, beam_size), -math.inf)
    scores[:, 0] = 0.0
    written = torch.full((sentences, beam_size, 1), BOS)

    for length in range(1, max_length + 1):
        rows = open_sentences.numel()
        log_probabilities = _log_probabilities(model.step(written[:, :, -1].flatten(), state))
        vocabulary_size = log_probabilities.shape[-1]
        totals = (scores.flatten()[:, None] + log_probabilities).view(rows, beam_size * vocabulary_size)
        # Twice the beam: even if every hypothesis wants to end, there are k others to go on with.
        top_scores, top = totals.topk(2 * beam_size, dim=-1)
        parents, tokens = top // vocabulary_size, top % vocabulary_size
        ends = tokens == EOS
        for row, rank in ends[:, :beam_size].nonzero().tolist():
            if top_scores[row, rank] > -math.inf:
                finished[open_sentences[row]].append(
                    Hypothesis(
                        tokens=(*written[row, parents[row, rank], 1:].tolist(), EOS),
                        log_probability=top_scores[row, rank].item(),
                        finished=True,
                    )
                )
        top_scores = top_scores.masked_fill(ends, -math.inf)
        going_on = top_scores.argsort(dim=-1, descending=True, stable=True)[:, :beam_size]
        scores = top_scores.gather(1, going_on)
        parents = parents.gather(1, going_on)
        tokens = tokens.gather(1, going_on)
        written = torch.cat(
            (written.gather(1, parents[:, :, None].expand(-1, -1, length)), tokens[:, :, None]), dim=2
        )
        alive = torch.tensor(
            [
                _can_improve(finished[sentence], scores[row, 0].item(), beam_size, max_length, alpha)
                for row, sentence in enumerate(open_sentences.tolist())
            ]
        )
        if not alive.any():
            open_sentences = open_sentences[:0]
            break
        state.select(((torch.arange(rows) * beam_size)[:, None] + parents)[alive].flatten())
        open_sentences, scores, written = open_sentences[alive], scores[alive], written[alive]

    for row, sentence in enumerate(open_sentences.tolist()):
        for place in range(beam_size):
            if scores[row, place] > -math.inf:
                finished[sentence].append(
                    Hypothesis(
                        tokens=tuple(written[row, place, 1:].tolist()),
                        log_probability=scores[row, place].item(),
                        finished=False,
                    )
                )
    for hypotheses in finished:
        hypotheses.sort(key=lambda h: (not h.finished, -_normalised(h, alpha)))
        del hypotheses[beam_size:]
    return finished


def _normalised(hypothesis: Hypothesis, alpha: float) -> float:
    return hypothesis.log_probability / length_penalty(len(hypothesis.tokens), alpha)


def _can_improve(
    finished: list[Hypothesis], best_open: float, beam_size: int, max_length: int, alpha: float
) -> bool:
    if best_open == -math.inf:
        return False
    if not finished:
        return True
    if len(finished) >= beam_size:
        return False
    # Log probabilities only fall, and the longest target has the greatest divisor.
    return best_open / length_penalty(max_length, alpha) > max(_normalised(h, alpha) for h in finished)


def _log_probabilities(logits: Tensor) -> Tensor:
    log_probabilities = logits.float().log_softmax(dim=-1)
    log_probabilities[:, list(FORBIDDEN)] = -math.inf
    return log_probabilities


def _decode_one_each(model: StepModel, source_ids: Tensor, max_length: int, choose: Any) -> list[Hypothesis]:
    sentences = source_ids.shape[0]
    state = model.start(source_ids, max_length)
    tokens = torch.full((sentences,), BOS)
    open_sentences = torch.arange(sentences)
    written: list[list[int]] = [[] for _ in range(sentences)]
    totals = [0.0] * sentences
    for _ in range(max_length):
        log_probabilities = _log_probabilities(model.step(tokens, state))
        tokens = choose(log_probabilities)
        chosen = log_probabilities.gather(1, tokens[:, None]).squeeze(1)
        for sentence, token, log_probability in zip(
            open_sentences.tolist(), tokens.tolist(), chosen.tolist(), strict=True
        ):
            written[sentence].append(token)
            totals[sentence] += log_probability
        going_on = (tokens != EOS).nonzero().squeeze(1)
        if going_on.numel() == 0:
            break
        if going_on.numel() < tokens.numel():
            state.select(going_on)
            tokens, open_sentences = tokens[going_on], open_sentences[going_on]
    return [
        Hypothesis(tokens=tuple(tokens), log_probability=total, finished=tokens[-1] == EOS)
        for tokens, total in zip(written, totals, strict=True)
    ]
