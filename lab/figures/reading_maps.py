"""From a reading to the three maps of the picture of all heads."""

from lab.figures.heads import AttentionMap
from transformer.analysis.reading import MAP_NAMES, Reading


def reading_maps(reading: Reading, d_k: int) -> list[AttentionMap]:
    """The encoder's, the decoder's and the cross-attention of a reading, token by token.

    A row of the decoder is labelled with the token that is read there; it predicts the token one place on.

    Args:
        reading: What `transformer.analysis.reading.read` returned, with its weights and masks kept.
        d_k: Width of a head.
    """
    source, written, read = reading.source.tokens, reading.target.tokens, reading.decoder_input
    # BOS stands before the words that are written, and is a word by itself.
    read_words = (0, *(word + 1 for word in reading.target.words[:-1]))
    sides = {
        "encoder": (source, reading.source.words, None, source, reading.source.words),
        "decoder": (read, read_words, written, read, read_words),
        "cross": (read, read_words, written, source, reading.source.words),
    }
    maps = []
    for name in MAP_NAMES:
        queries, query_words, predicted, keys, key_words = sides[name]
        maps.append(
            AttentionMap(
                key=name,
                weights=reading.weights(name).numpy(),
                mask=reading.mask(name).numpy(),
                query_tokens=queries,
                key_tokens=keys,
                predicted_tokens=predicted,
                query_words=query_words,
                key_words=key_words,
                d_k=d_k,
            )
        )
    return maps
