"""Attention weights of one forward pass, made ready for the picture of all heads.

Three maps (section 3.2.3 of *Attention Is All You Need*): the encoder's self-attention, the decoder's masked
self-attention and the cross-attention. Arrays in, one payload out; the picture itself is drawn in the browser
by ``assets/components/heads/heads.js``.

Transport. Every weight of every head is sent once, as unsigned 16-bit fixed point (``round(65535 w)``, error at most
1/131070 = 7.6e-6, so the four decimals on the screen are right to within one unit of the last), in one block of
bytes apart from the description. Measured at 128 tokens, 6 layers, 8 heads, 3 maps (2.36 M weights): 4.7 MB
as bytes, 6.3 MB as base64 inside JSON, 9.4 MB as float32. The alternative, thumbnails for all heads and exact
numbers for the selected one, is a tenth of that but asks the server at each step through the heads; sent once,
walking and hovering need no traffic, and Streamlit's message cache keeps the block in the browser between reruns.

Legend: L layers, H heads, Q queries, K keys.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

MapKey = Literal["encoder", "decoder", "cross"]
View = Literal["tokens", "words"]
Scale = Literal["unit", "head"]
Head = int | Literal["mean", "max"]

SIDES: dict[str, tuple[str, str]] = {
    "encoder": ("source", "source"),
    "decoder": ("target", "target"),
    "cross": ("target", "source"),
}
FIXED_POINT = 65535
WEIGHT_ERROR = 0.5 / FIXED_POINT
SINK_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMap:
    """All heads of one kind of attention over one input.

    Attributes:
        key: Which attention: ``encoder``, ``decoder`` (masked self-attention) or ``cross``.
        weights: (L, H, Q, K) float32 in [0, 1]; rows sum to 1, masked cells are 0.
        mask: (Q, K) bool, True where the query may attend to the key.
        query_tokens: Q surface strings down the left. For decoder rows the token that is read.
        key_tokens: K surface strings across the top.
        predicted_tokens: Q strings, the token each row predicts; None where rows predict nothing (the encoder).
        query_words: Q word numbers; tokens of one word share one.
        key_words: K word numbers.
        d_k: Width of a head.

    Raises:
        ValueError: If shapes disagree.
    """

    key: MapKey
    weights: NDArray[np.float32]
    mask: NDArray[np.bool_]
    query_tokens: tuple[str, ...]
    key_tokens: tuple[str, ...]
    predicted_tokens: tuple[str, ...] | None
    query_words: tuple[int, ...]
    key_words: tuple[int, ...]
    d_k: int

    def __post_init__(self) -> None:
        queries, keys = len(self.query_tokens), len(self.key_tokens)
        if self.weights.ndim != 4 or self.weights.shape[2:] != (queries, keys):
            raise ValueError(
                f"weights has shape {self.weights.shape}; "
                f"it must be (layers, heads, {queries}, {keys}), as the tokens say."
            )
        if self.mask.shape != (queries, keys):
            raise ValueError(f"mask has shape {self.mask.shape}; it must be ({queries}, {keys}).")
        if len(self.query_words) != queries or len(self.key_words) != keys:
            raise ValueError("query_words and key_words must hold one number a token.")
        if self.predicted_tokens is not None and len(self.predicted_tokens) != queries:
            raise ValueError(f"predicted_tokens has {len(self.predicted_tokens)} entries for {queries} rows.")


@dataclass(frozen=True)
class Pin:
    """What the reader holds fast: a cell of a map, or (with one None) a whole row or column."""

    map: str
    query: int | None
    key: int | None


@dataclass(frozen=True)
class Selection:
    """What is selected in the picture; layers and heads count from 0.

    Attributes:
        map: The map that has the keyboard's attention, to which `layer` and `head` belong.
        layer: Layer of the selected head.
        head: Number of the head, or ``mean`` / ``max`` for a summary over heads.
        pinned: What is pinned, or None.
        heads: The (layer, head) shown large in each map; maps left out show the last layer's first head.
    """

    map: MapKey = "encoder"
    layer: int = 0
    head: Head = 0
    pinned: Pin | None = None
    heads: Mapping[str, tuple[int, Head]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sink:
    """A key position that draws most of a head's attention."""

    key: int
    share: float


def find_sink(weights: NDArray[np.floating], mask: NDArray[np.bool_]) -> Sink | None:
    """The attention sink of one head, if it has one.

    Only rows that have a choice count: those that may attend to two keys or more. A key's share is the mean weight
    it receives from the counting rows that may attend to it. The key with the largest share is a sink when that
    share is above `SINK_SHARE` (one half). Keys that fewer than half of the counting rows, or fewer than two, may
    attend to are no candidates: the last keys under a causal mask are seen by a row or two only.

    Args:
        weights: (Q, K) weights of the head.
        mask: (Q, K) bool, True where the query may attend.
    """
    rows = mask.sum(axis=1) >= 2
    seen = mask[rows].sum(axis=0)
    candidates = seen >= max(2.0, rows.sum() / 2)
    if not candidates.any():
        return None
    received = np.where(mask[rows], weights[rows], 0.0).sum(axis=0, dtype=np.float64)
    share = np.where(candidates, received / np.maximum(seen, 1), 0.0)
    key = int(share.argmax())
    return Sink(key, float(share[key])) if share[key] > SINK_SHARE else None


def _groups(words: Sequence[int]) -> list[list[int]]:
    """Positions of each word, words in order of first appearance."""
    positions: dict[int, list[int]] = {}
    for position, word in enumerate(words):
        positions.setdefault(word, []).append(position)
    return list(positions.values())


def merge_words(attention: AttentionMap) -> AttentionMap:
    """The map with the sub-words of each word merged.

    Weights to the keys of a word are summed, then averaged over the queries of a word (over those that may attend to
    something), so rows still sum to 1. A cell is masked only if all its cells are. A word that predicts several
    tokens lists them.
    """
    query_groups, key_groups = _groups(attention.query_words), _groups(attention.key_words)
    to_queries = np.zeros((len(query_groups), len(attention.query_tokens)), dtype=np.float64)
    attends: NDArray[np.bool_] = np.asarray(attention.mask.any(axis=1))
    for row, group in enumerate(query_groups):
        live = [position for position in group if attends[position]]
        to_queries[row, live] = 1.0 / max(len(live), 1)
    to_keys = np.zeros((len(attention.key_tokens), len(key_groups)), dtype=np.float64)
    for column, group in enumerate(key_groups):
        to_keys[group, column] = 1.0
    weights = to_queries @ np.where(attention.mask, attention.weights, 0.0) @ to_keys
    mask = to_queries @ attention.mask.astype(np.float64) @ to_keys > 0

    def join(tokens: Sequence[str], groups: list[list[int]], separator: str = "") -> tuple[str, ...]:
        return tuple(separator.join(tokens[position] for position in group) for group in groups)

    return AttentionMap(
        key=attention.key,
        weights=weights.astype(np.float32),
        mask=mask,
        query_tokens=join(attention.query_tokens, query_groups),
        key_tokens=join(attention.key_tokens, key_groups),
        predicted_tokens=None
        if attention.predicted_tokens is None
        else join(attention.predicted_tokens, query_groups, " · "),
        query_words=tuple(range(len(query_groups))),
        key_words=tuple(range(len(key_groups))),
        d_k=attention.d_k,
    )


def encode_weights(weights: NDArray[np.floating]) -> bytes:
    """Weights in [0, 1] as little-endian unsigned 16-bit fixed point; error at most `WEIGHT_ERROR`."""
    return np.rint(np.clip(weights, 0.0, 1.0) * np.float32(FIXED_POINT)).astype("<u2").tobytes()


def decode_weights(block: bytes) -> NDArray[np.float64]:
    """The inverse of `encode_weights`, flat."""
    return np.frombuffer(block, dtype="<u2").astype(np.float64) / FIXED_POINT


def _describe(attention: AttentionMap, token_keys: int, offset: int) -> dict[str, Any]:
    layers, heads, queries, keys = attention.weights.shape
    sinks = [
        [find_sink(attention.weights[layer, head], attention.mask) for head in range(heads)]
        for layer in range(layers)
    ]
    query_side, key_side = SIDES[attention.key]
    return {
        "key": attention.key,
        "layers": layers,
        "heads": heads,
        "queries": queries,
        "keys": keys,
        "offset": offset,
        "mask": base64.b64encode(np.packbits(attention.mask, bitorder="little").tobytes()).decode("ascii"),
        "query_tokens": list(attention.query_tokens),
        "key_tokens": list(attention.key_tokens),
        "predicted_tokens": None if attention.predicted_tokens is None else list(attention.predicted_tokens),
        "query_side": query_side,
        "key_side": key_side,
        "d_k": attention.d_k,
        "token_keys": token_keys,
        "sinks": [[sink and {"key": sink.key, "share": sink.share} for sink in row] for row in sinks],
    }


def heads_payload(
    maps: Sequence[AttentionMap],
    *,
    selection: Selection,
    view: View,
    scale: Scale,
    strings: Mapping[str, str],
    causal: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything the picture of all heads needs.

    Args:
        maps: The maps, in the order of the panels.
        selection: What to select and pin at first; later the picture keeps its own and reports it.
        view: ``tokens``, or ``words`` with sub-words merged (see `merge_words`).
        scale: ``unit`` colours from 0 to 1, ``head`` from 0 to the largest weight of each head.
        strings: Every visible string, by name (``lab.ui.heads_view.heads_strings`` lists them).
        causal: What happens without the head: ``map``, ``layer``, ``head``, ``mode`` (``zero`` or ``uniform``),
            ``tokens``, ``before`` and ``after`` (probabilities of the generated tokens) and ``delta``. Without
            ``tokens``, or for another head than the selected one, the picture says that it is being computed.

    Returns:
        A dictionary of JSON values, except ``weights``: bytes, 16 of the payload's digest and then the fixed-point
        weights of all maps, each (L, H, Q, K) in C order. ``hash`` is that digest in hexadecimal; what it covers
        is decoded in the browser once.
    """
    shown = [merge_words(attention) for attention in maps] if view == "words" else list(maps)
    described, blocks, offset = [], [], 0
    for attention, original in zip(shown, maps, strict=True):
        described.append(_describe(attention, len(original.key_tokens), offset))
        blocks.append(encode_weights(attention.weights))
        offset += attention.weights.size
    body = b"".join(blocks)
    digest = hashlib.blake2b(json.dumps([view, described]).encode() + body, digest_size=16).digest()
    return {
        "hash": digest.hex(),
        "view": view,
        "scale": scale,
        "maps": described,
        "selection": selection_json(selection),
        "strings": dict(strings),
        "causal": None if causal is None else dict(causal),
        "weights": digest + body,
    }


def selection_json(selection: Selection) -> dict[str, Any]:
    """The selection as the picture exchanges it."""
    pin = selection.pinned
    return {
        "map": selection.map,
        "layer": selection.layer,
        "head": selection.head,
        "pinned": None if pin is None else {"map": pin.map, "query": pin.query, "key": pin.key},
        "heads": {key: list(place) for key, place in selection.heads.items()},
    }


def selection_from_json(value: Any, payload: Mapping[str, Any], default: Selection) -> Selection:
    """What the picture reported, or `default` if that does not fit the maps of `payload`.

    The browser's word is checked: it may be stale, of another sentence, or not ours at all.
    """
    maps = {described["key"]: described for described in payload["maps"]}

    def place(key: Any, layer: Any, head: Any) -> tuple[int, Head] | None:
        described = maps.get(key) if isinstance(key, str) else None
        if described is None or type(layer) is not int or not 0 <= layer < described["layers"]:
            return None
        if head in ("mean", "max") or (type(head) is int and 0 <= head < described["heads"]):
            return layer, head
        return None

    if not isinstance(value, Mapping):
        return default
    selected = place(value.get("map"), value.get("layer"), value.get("head"))
    if selected is None:
        return default
    heads = {}
    reported = value.get("heads")
    for key, pair in (reported if isinstance(reported, Mapping) else {}).items():
        if isinstance(pair, list) and len(pair) == 2 and (kept := place(key, *pair)):
            heads[key] = kept
    return Selection(value["map"], *selected, _pin_from_json(value.get("pinned"), maps), heads)


def _pin_from_json(value: Any, maps: Mapping[str, Mapping[str, Any]]) -> Pin | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("map"), str) or value["map"] not in maps:
        return None
    described, query, key = maps[value["map"]], value.get("query"), value.get("key")
    for position, size in ((query, described["queries"]), (key, described["keys"])):
        if position is not None and (type(position) is not int or not 0 <= position < size):
            return None
    return None if query is None and key is None else Pin(value["map"], query, key)
