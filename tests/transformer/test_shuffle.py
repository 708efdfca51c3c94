"""The proof by shuffling, against brute force and against models whose positions are known."""

import itertools

import pytest
import torch

from transformer.analysis.shuffle import prove_by_shuffling, reversed_words, shuffled_words, without_positions
from transformer.trace import Trace

KINDS = ["sinusoidal", "learned", "rotary", "alibi", "none"]
IDS = [5, 7, 5, 9, 4, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_without_positions_every_word_keeps_its_output(make_model, kind):
    model = make_model(positions=kind)
    proof = prove_by_shuffling(model, IDS, [3, 1, 4, 0, 2, 5])
    assert proof.without_positions.max() < 2e-5 * proof.size_without
    if kind == "none":
        assert torch.equal(proof.with_positions, proof.without_positions)
    else:
        assert (proof.with_positions > 1e-3).all()


@pytest.mark.parametrize("kind", KINDS)
def test_differences_equal_brute_force(make_model, kind):
    model = make_model(positions=kind)
    order = [3, 1, 4, 0, 2, 5]
    proof = prove_by_shuffling(model, IDS, order)
    with torch.no_grad():
        old = model.encode(torch.tensor([IDS]))[0]
        new = model.encode(torch.tensor([[IDS[place] for place in order]]))[0]
    for token in range(len(IDS)):
        expected = max(
            abs(a - b) for a, b in zip(old[token].tolist(), new[order.index(token)].tolist(), strict=True)
        )
        assert proof.with_positions[token].item() == pytest.approx(expected, abs=1e-5)
    assert proof.size_with == pytest.approx(old.abs().max().item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "rotary", "alibi"])
def test_edits_make_the_model_the_one_without_positions(make_model, kind):
    model = make_model(positions=kind)
    bare = make_model(positions="none")
    weights = {name: tensor for name, tensor in model.state_dict().items() if name in bare.state_dict()}
    bare.load_state_dict(weights)
    ids = torch.tensor([IDS])
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode(ids, Trace(keep=(), edits=without_positions(model))),
            bare.encode(ids),
            atol=2e-5,
            rtol=1e-5,
        )


def test_all_orders_of_a_short_sentence(make_model):
    model = make_model(positions="sinusoidal")
    for order in itertools.permutations(range(4)):
        proof = prove_by_shuffling(model, [6, 8, 10, 2], order)
        assert proof.without_positions.max() < 2e-5 * proof.size_without
        same_place = [token for place, token in enumerate(order) if place == token]
        if len(same_place) == 4:
            assert proof.with_positions.max() < 2e-5 * proof.size_with


def test_words_stay_whole_and_all_are_kept():
    words = [0, 0, 1, 2, 2, 2, 3]
    for seed in range(20):
        order = shuffled_words(words, seed)
        assert sorted(order) == list(range(7))
        assert order != tuple(range(7))
        assert order == shuffled_words(words, seed)
        moved = [words[place] for place in order]
        assert [word for word, _ in itertools.groupby(moved)] == list(dict.fromkeys(moved))
        for word in range(4):
            places = [place for place in order if words[place] == word]
            assert places == sorted(places)
    assert len({shuffled_words(words, seed) for seed in range(20)}) > 5
    assert reversed_words(words) == (6, 3, 4, 5, 2, 0, 1)
    assert shuffled_words([], 1) == reversed_words([]) == ()
    assert shuffled_words([0], 1) == (0,)


@pytest.mark.parametrize("order", [[0, 1], [0, 0, 1], [1, 2, 3]])
def test_what_is_not_a_permutation_is_refused(make_model, order):
    with pytest.raises(ValueError, match="each of the 3 places once"):
        prove_by_shuffling(make_model(), [5, 6, 2], order)
