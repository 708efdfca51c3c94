"""Texts in, texts out: translate many lines in batches, and measure how good the translations are."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sacrebleu.metrics import BLEU, CHRF

from transformer.checkpoint import Checkpoint
from transformer.data.pairs import Pair, group_references
from transformer.decode import beam_search, greedy
from transformer.vocabulary import EOS, PAD, is_han

BATCH_TOKENS = 4000
# The paper stops a target at the source's length + 50 (section 6.1). Rounded up here, so that sentences share batches.
EXTRA_LENGTH = 50
LENGTH_STEP = 32


class TooLongError(ValueError):
    """A text has more tokens than the model can read.

    Attributes:
        index: Which text, from 0.
    """

    def __init__(self, index: int, length: int, limit: int) -> None:
        super().__init__(f"it has {length} tokens and this model reads at most {limit}")
        self.index = index


@torch.inference_mode()
def translate(checkpoint: Checkpoint, texts: Sequence[str], *, beam: int = 4) -> list[str]:
    """Translate texts, in order. What a text becomes does not depend on its company.

    Args:
        checkpoint: The trained model.
        texts: Texts of one sentence each; one without any token stays empty.
        beam: Hypotheses kept; 1 takes the most probable token each time.

    Raises:
        TooLongError: If a text has more tokens than the model can read.
    """
    limit = checkpoint.model.config.max_length
    sources = [[*ids, EOS] for ids in checkpoint.source_vocabulary.encode_ids(texts)]
    for index, source in enumerate(sources):
        if len(source) > limit:
            raise TooLongError(index, len(source) - 1, limit - 1)
    translations = [""] * len(texts)
    for max_length, group in groups_of_similar_length(sources, limit, beam):
        source_ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(sources[index]) for index in group], batch_first=True, padding_value=PAD
        )
        if beam == 1:
            best = greedy(checkpoint.model, source_ids, max_length=max_length)
        else:
            found = beam_search(checkpoint.model, source_ids, max_length=max_length, beam_size=beam)
            best = [hypotheses[0] for hypotheses in found]
        for index, hypothesis in zip(group, best, strict=True):
            # One line stays one line, whatever the vocabulary holds.
            translations[index] = " ".join(
                checkpoint.target_vocabulary.decode(hypothesis.tokens).splitlines()
            )
    return translations


def groups_of_similar_length(
    sources: Sequence[Sequence[int]], limit: int, beam: int
) -> Iterator[tuple[int, list[int]]]:
    """Cut sentences into batches; yields the greatest target length and the numbers of the sentences."""

    def target_limit(index: int) -> int:
        steps = -(-(len(sources[index]) + EXTRA_LENGTH) // LENGTH_STEP)
        return min(limit, steps * LENGTH_STEP)

    # A lone EOS is an empty text.
    order = sorted(
        (i for i in range(len(sources)) if len(sources[i]) > 1), key=lambda i: (len(sources[i]), i)
    )
    group: list[int] = []
    for index in order:
        full = len(sources[index]) * (len(group) + 1) * beam > BATCH_TOKENS
        if group and (full or target_limit(index) != target_limit(group[0])):
            yield target_limit(group[0]), group
            group = []
        group.append(index)
    if group:
        yield target_limit(group[0]), group


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good translations are.

    Attributes:
        bleu: Corpus BLEU by sacreBLEU, 0 to 100.
        bleu_signature: How it was computed.
        chrf: Corpus chrF2 by sacreBLEU, 0 to 100.
        sentences: Different source sentences.
        seconds: Seconds that translating them took.
    """

    bleu: float
    bleu_signature: str
    chrf: float
    sentences: int
    seconds: float


def measure(checkpoint: Checkpoint, pairs: Sequence[Pair], *, beam: int = 4) -> Quality:
    """Translate each different source once and compare with all its references.

    Chinese is tokenised by sacreBLEU's ``zh``, everything else by its ``13a``.

    Raises:
        TooLongError: If a source has more tokens than the model can read.
    """
    references = group_references(pairs)
    began = time.perf_counter()
    translations = translate(checkpoint, list(references), beam=beam)
    return score(translations, references, seconds=time.perf_counter() - began)


def score(translations: Sequence[str], references: Mapping[str, Sequence[str]], *, seconds: float) -> Quality:
    """Compare translations with references; see `measure`.

    Args:
        translations: A translation of each source, in the order of `references`.
        references: All references of each source.
        seconds: Seconds that the translations took.
    """
    most = max(len(targets) for targets in references.values())
    # sacreBLEU wants one list a rank of reference, None where a source has fewer.
    streams: list[Any] = [
        [targets[rank] if rank < len(targets) else None for targets in references.values()]
        for rank in range(most)
    ]
    bleu = BLEU(
        tokenize="zh" if mostly_chinese(text for texts in references.values() for text in texts) else "13a"
    )
    chrf = CHRF()
    return Quality(
        bleu=bleu.corpus_score(translations, streams).score,
        chrf=chrf.corpus_score(translations, streams).score,
        bleu_signature=str(bleu.get_signature()),
        sentences=len(references),
        seconds=seconds,
    )


def mostly_chinese(texts: Iterator[str]) -> bool:
    """Whether more letters of the texts are Chinese than not."""
    letters = [character for text in texts for character in text if character.isalpha()]
    return 2 * sum(map(is_han, letters)) > len(letters)
