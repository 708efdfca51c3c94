"""The payload of the picture of all heads says exactly what the traced tensors say."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from lab.figures.heads import (
    WEIGHT_ERROR,
    AttentionMap,
    Pin,
    Selection,
    decode_weights,
    encode_weights,
    find_sink,
    heads_payload,
    merge_words,
    selection_from_json,
    selection_json,
)
from tests.lab.heads_sample import sample_maps

SOURCE = ["un", "-happi", "-ness", "is", "not", "for", "-ever"]
TARGET = ["不", "快", "乐", "，", "会", "过", "去"]


@pytest.fixture(scope="module")
def maps() -> list[AttentionMap]:
    return sample_maps(SOURCE, TARGET, layers=2, heads=3)


def payload_of(maps, **changes):
    asked = {"selection": Selection(), "view": "tokens", "scale": "unit", "strings": {}} | changes
    return heads_payload(maps, **asked)


def test_numbers_decode_to_the_traced_weights(maps):
    payload = payload_of(maps)
    decoded = decode_weights(payload["weights"][16:])
    assert payload["weights"][:16].hex() == payload["hash"]
    for described, attention in zip(payload["maps"], maps, strict=True):
        shape = (described["layers"], described["heads"], described["queries"], described["keys"])
        assert shape == attention.weights.shape
        part = decoded[described["offset"] : described["offset"] + attention.weights.size].reshape(shape)
        # The last term is float32's own rounding of the product with 65535.
        assert np.abs(part - attention.weights).max() <= WEIGHT_ERROR + 1e-7
        assert (part[:, :, ~attention.mask] == 0).all()
        bits = np.frombuffer(base64.b64decode(described["mask"]), np.uint8)
        mask = np.unpackbits(bits, count=attention.mask.size, bitorder="little").reshape(attention.mask.shape)
        assert (mask.astype(bool) == attention.mask).all()
    assert decoded.size == sum(attention.weights.size for attention in maps)


def test_ends_of_the_fixed_point_are_exact():
    assert decode_weights(encode_weights(np.array([0.0, 1.0, 1.0000001], np.float32))).tolist() == [
        0.0,
        1.0,
        1.0,
    ]


def test_maps_keep_repeated_tokens_apart_and_name_what_is_predicted(maps):
    encoder, decoder, cross = payload_of(sample_maps(["the", "the"], ["a", "a"]))["maps"]
    assert encoder["key_tokens"] == ["the", "the"]
    assert decoder["query_tokens"] == ["<s>", "a", "a"]
    assert decoder["predicted_tokens"] == cross["predicted_tokens"] == ["a", "a", "</s>"]
    assert encoder["predicted_tokens"] is None


def test_words_against_brute_force(maps):
    for attention in maps:
        merged = merge_words(attention)
        query_words = list(dict.fromkeys(attention.query_words))
        key_words = list(dict.fromkeys(attention.key_words))
        for row, query_word in enumerate(query_words):
            queries = [q for q, word in enumerate(attention.query_words) if word == query_word]
            for column, key_word in enumerate(key_words):
                keys = [k for k, word in enumerate(attention.key_words) if word == key_word]
                sums = [sum(attention.weights[1, 2, q, k] for k in keys) for q in queries]
                assert merged.weights[1, 2, row, column] == pytest.approx(sum(sums) / len(queries), abs=1e-6)
                permitted = any(attention.mask[q, k] for q in queries for k in keys)
                assert merged.mask[row, column] == permitted
        np.testing.assert_allclose(merged.weights.sum(-1), 1.0, atol=1e-5)
    assert merge_words(maps[0]).key_tokens == ("un-happi-ness", "is", "not", "for-ever")
    assert payload_of(maps, view="words")["maps"][0]["token_keys"] == len(SOURCE)


def test_a_word_that_predicts_several_tokens_lists_them():
    attention = sample_maps(["一"], ["sun", "-ny"])[2]
    assert merge_words(attention).predicted_tokens == ("sun", "-ny · </s>")


def test_a_query_without_any_key_gives_zeros_and_does_not_dilute_its_word(maps):
    weights = maps[0].weights.copy()
    mask = maps[0].mask.copy()
    weights[:, :, 1], mask[1] = 0.0, False
    merged = merge_words(replace(maps[0], weights=weights, mask=mask))
    np.testing.assert_allclose(merged.weights.sum(-1), 1.0, atol=1e-5)


def test_sink_needs_half_the_attention_of_the_rows_with_a_choice():
    mask = np.tril(np.ones((6, 6), bool))
    weights = np.zeros((6, 6))
    weights[:, 0] = 0.75
    weights[np.arange(6), np.arange(6)] += 0.25
    sink = find_sink(weights, mask)
    assert sink is not None
    assert (sink.key, sink.share) == (0, pytest.approx(0.75))
    # The first row has no choice; the last key is seen by one row only, however much that row gives it.
    diagonal = np.eye(6)
    assert find_sink(diagonal, mask) is None
    uniform = np.full((4, 4), 0.25)
    assert find_sink(uniform, np.ones((4, 4), bool)) is None
    assert find_sink(np.full((4, 1), 1.0), np.ones((4, 1), bool)) is None


def test_hash_covers_what_is_drawn_and_nothing_else(maps):
    payload = payload_of(maps)
    assert (
        payload_of(maps, selection=Selection(layer=1), scale="head", strings={"a": "b"})["hash"]
        == payload["hash"]
    )
    assert payload_of(maps, view="words")["hash"] != payload["hash"]
    renamed = replace(maps[0], query_tokens=("x", *maps[0].query_tokens[1:]))
    assert payload_of([renamed, *maps[1:]])["hash"] != payload["hash"]
    changed = replace(maps[0], weights=maps[0].weights * np.float32(0.5))
    assert payload_of([changed, *maps[1:]])["hash"] != payload["hash"]


def test_selection_there_and_back(maps):
    payload = payload_of(maps)
    for selection in (
        Selection("cross", 1, 2, Pin("decoder", 1, None), {"encoder": (0, "mean"), "cross": (1, 2)}),
        Selection("encoder", 0, "max"),
    ):
        assert selection_from_json(selection_json(selection), payload, Selection()) == selection


@pytest.mark.parametrize(
    "reported",
    [
        None,
        "cross",
        {"map": "nowhere", "layer": 0, "head": 0},
        {"map": "cross", "layer": 2, "head": 0},
        {"map": "cross", "layer": True, "head": 0},
        {"map": "cross", "layer": 0, "head": "median"},
        {"map": ["cross"], "layer": 0, "head": 0},
    ],
)
def test_a_selection_that_does_not_fit_is_refused(maps, reported):
    default = Selection("decoder", 1, 1)
    assert selection_from_json(reported, payload_of(maps), default) == default


def test_a_pin_that_does_not_fit_is_dropped(maps):
    reported = {"map": "cross", "layer": 0, "head": 0, "pinned": {"map": "cross", "query": 99, "key": 0}}
    assert selection_from_json(reported, payload_of(maps), Selection()) == Selection("cross", 0, 0)


def test_shapes_that_disagree_are_refused(maps):
    with pytest.raises(ValueError, match="it must be"):
        replace(maps[0], key_tokens=("a",))
    with pytest.raises(ValueError, match="mask has shape"):
        replace(maps[0], mask=np.ones((1, 1), bool))


def test_payload_at_the_limit_is_five_megabytes():
    rng = np.random.default_rng(0)
    tokens = tuple(f"t{i}" for i in range(128))
    maps = [
        AttentionMap(
            key=key,
            weights=rng.dirichlet(np.ones(128), (6, 8, 128)).astype(np.float32),
            mask=np.ones((128, 128), bool),
            query_tokens=tokens,
            key_tokens=tokens,
            predicted_tokens=None,
            query_words=tuple(range(128)),
            key_words=tuple(range(128)),
            d_k=32,
        )
        for key in ("encoder", "decoder", "cross")
    ]
    payload = payload_of(maps)
    assert len(payload["weights"]) == 16 + 2 * 3 * 6 * 8 * 128 * 128
