"""Decoding: cached against uncached, batched against one by one, beams against enumeration, draws against chances."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from transformer.decode import beam_search, greedy, length_penalty, sample
from transformer.vocabulary import BOS, EOS, PAD, UNK

POSITIONS = ["sinusoidal", "learned", "rotary", "alibi", "none"]
SPECIAL = {PAD, BOS, UNK}


@pytest.fixture
def sources() -> Tensor:
    source = torch.randint(4, 13, (6, 7))
    for row, length in enumerate((7, 5, 2, 7, 3, 1)):
        source[row, length:] = PAD
    return source


class Table:
    """A model whose next-token logits are a function of the tokens written so far, and that counts its rows."""

    def __init__(self, vocabulary: int, seed: int = 0) -> None:
        self.vocabulary = vocabulary
        self.seed = seed
        self.rows: list[int] = []

    def logits(self, sentence: int, written: tuple[int, ...]) -> Tensor:
        key = hash((self.seed, sentence, *written)) % 2**31
        logits = torch.randn(self.vocabulary, generator=torch.Generator().manual_seed(key)) * 1.5
        logits[EOS] += 0.5
        return logits

    def start(self, source_ids: Tensor, capacity: int) -> SimpleNamespace:
        state = SimpleNamespace(rows=[(int(row[0]), ()) for row in source_ids])
        state.select = lambda rows: setattr(state, "rows", [state.rows[row] for row in rows.tolist()])
        return state

    def step(self, tokens: Tensor, state: SimpleNamespace) -> Tensor:
        state.rows = [(key, (*w, token)) for (key, w), token in zip(state.rows, tokens.tolist(), strict=True)]
        self.rows.append(len(state.rows))
        return torch.stack([self.logits(key, written) for key, written in state.rows])


def tokens_of(hypotheses):
    return [hypothesis.tokens for hypothesis in hypotheses]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("attention", ["dot_product", "additive"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_cached_steps_equal_the_whole_forward_pass(make_model, sources, positions, attention, norm, causal):
    model = make_model(positions=positions, norm=norm, attention=attention, causal=causal)
    written = torch.cat((torch.full((6, 1), BOS), torch.randint(4, 11, (6, 7))), dim=1)
    with torch.no_grad():
        state = model.start(sources, 8)
        for t in range(8):
            stepped = model.step(written[:, t], state)
            whole = model(sources, written[:, : t + 1])[:, -1]
            torch.testing.assert_close(stepped, whole, atol=2e-5, rtol=1e-4)
            if t == 3:  # reorder, double and drop hypotheses on the way
                rows = torch.tensor([5, 0, 0, 2])
                state.select(rows)
                sources, written = sources[rows], written[rows]


@pytest.mark.parametrize("positions", POSITIONS)
def test_greedy_writes_the_most_probable_token_of_the_whole_forward_pass(make_model, sources, positions):
    model = make_model(positions=positions)
    for row, hypothesis in enumerate(greedy(model, sources, max_length=9)):
        written, total = [BOS], 0.0
        for token in hypothesis.tokens:
            log_probabilities = model(sources[row : row + 1], torch.tensor([written]))[0, -1].log_softmax(
                dim=-1
            )
            total += log_probabilities[token].item()
            log_probabilities[list(SPECIAL)] = -math.inf
            assert token == log_probabilities.argmax()
            written.append(token)
        assert hypothesis.log_probability == pytest.approx(total, abs=1e-4)
        assert hypothesis.finished == (hypothesis.tokens[-1] == EOS)
        assert hypothesis.finished or len(hypothesis.tokens) == 9


@pytest.mark.parametrize("seed", range(5))
def test_beam_of_one_is_greedy(make_model, sources, seed):
    torch.manual_seed(seed)
    model = make_model()
    one = [hypotheses[0] for hypotheses in beam_search(model, sources, max_length=9, beam_size=1)]
    best = greedy(model, sources, max_length=9)
    assert tokens_of(one) == tokens_of(best)
    assert [h.finished for h in one] == [h.finished for h in best]
    for first, second in zip(one, best, strict=True):
        assert first.log_probability == pytest.approx(second.log_probability, abs=1e-4)
    table = Table(7, seed)
    keys = torch.arange(10)[:, None]
    assert tokens_of(h[0] for h in beam_search(table, keys, max_length=8, beam_size=1)) == tokens_of(
        greedy(table, keys, max_length=8)
    )


def enumerate_all(table: Table, sentence: int, max_length: int) -> dict[tuple[int, ...], float]:
    """Log probability of every target that ends with EOS within the length, and of every one cut off there."""
    results = {}
    writable = [token for token in range(table.vocabulary) if token not in SPECIAL]

    def extend(written: tuple[int, ...], total: float) -> None:
        log_probabilities = table.logits(sentence, (BOS, *written)).log_softmax(dim=-1)
        for token in writable:
            longer, sum_ = (*written, token), total + log_probabilities[token].item()
            if token == EOS or len(longer) == max_length:
                results[longer] = sum_
            else:
                extend(longer, sum_)

    extend((), 0.0)
    return results


@pytest.mark.parametrize(("alpha", "seed"), list(itertools.product((0.0, 0.6, 1.0, 3.0), range(6))))
def test_a_wide_beam_finds_what_enumeration_finds(alpha, seed):
    table = Table(6, seed)  # three tokens can be written: EOS, 4 and 5
    max_length = 4
    found = beam_search(table, torch.arange(3)[:, None], max_length=max_length, beam_size=40, alpha=alpha)
    for sentence, hypotheses in enumerate(found):
        everything = enumerate_all(table, sentence, max_length)
        finished = {tokens: total for tokens, total in everything.items() if tokens[-1] == EOS}
        penalised = {tokens: total / ((5 + len(tokens)) / 6) ** alpha for tokens, total in finished.items()}
        best = max(penalised, key=penalised.__getitem__)
        assert hypotheses[0].tokens == best
        assert hypotheses[0].finished
        for hypothesis in hypotheses:
            assert hypothesis.log_probability == pytest.approx(everything[hypothesis.tokens], abs=1e-4)
            assert hypothesis.finished == (hypothesis.tokens[-1] == EOS)
        ranks = [
            (not h.finished, -h.log_probability / length_penalty(len(h.tokens), alpha)) for h in hypotheses
        ]
        assert ranks == sorted(ranks)
        assert len(set(tokens_of(hypotheses))) == len(hypotheses)


def narrow_beam(
    table: Table, sentence: int, max_length: int, beam_size: int, alpha: float
) -> tuple[int, ...]:
    """The same search, of one sentence, with lists."""
    beam, finished = [((), 0.0)], []
    for _ in range(max_length):
        candidates = []
        for written, total in beam:
            log_probabilities = table.logits(sentence, (BOS, *written)).log_softmax(dim=-1)
            candidates += [
                ((*written, token), total + log_probabilities[token].item())
                for token in range(table.vocabulary)
                if token not in SPECIAL
            ]
        candidates.sort(key=lambda candidate: -candidate[1])
        finished += [c for c in candidates[:beam_size] if c[0][-1] == EOS]
        beam = [c for c in candidates[: 2 * beam_size] if c[0][-1] != EOS][:beam_size]
        if len(finished) >= beam_size:
            break
    key = lambda candidate: candidate[1] / length_penalty(len(candidate[0]), alpha)  # noqa: E731
    return max(finished or beam, key=key)[0]


@pytest.mark.parametrize(("beam_size", "alpha"), [(2, 0.0), (2, 0.6), (3, 1.0), (4, 0.6)])
def test_a_narrow_beam_equals_a_plain_one(beam_size, alpha):
    table = Table(9, seed=3)
    found = beam_search(table, torch.arange(25)[:, None], max_length=10, beam_size=beam_size, alpha=alpha)
    expected = [narrow_beam(table, sentence, 10, beam_size, alpha) for sentence in range(25)]
    assert [hypotheses[0].tokens for hypotheses in found] == expected


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_batch_gives_what_each_sentence_gives_alone(make_model, sources, positions, beam_size):
    model = make_model(positions=positions)
    together = beam_search(model, sources, max_length=9, beam_size=beam_size)
    greedily = greedy(model, sources, max_length=9)
    for row in range(len(sources)):
        alone = sources[row : row + 1, : int((sources[row] != PAD).sum())]
        (expected,) = beam_search(model, alone, max_length=9, beam_size=beam_size)
        assert tokens_of(together[row]) == tokens_of(expected)
        for one, other in zip(together[row], expected, strict=True):
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        assert greedily[row].tokens == greedy(model, alone, max_length=9)[0].tokens


def test_finished_hypotheses_leave_the_batch():
    table = Table(7)
    hypotheses = greedy(table, torch.arange(20)[:, None], max_length=12)
    lengths = [len(h.tokens) for h in hypotheses]
    assert len(set(lengths)) > 2
    assert table.rows == [sum(length >= step for length in lengths) for step in range(1, max(lengths) + 1)]
    table = Table(7)
    beam_search(table, torch.arange(20)[:, None], max_length=12, beam_size=3)
    assert table.rows[0] == 60
    assert table.rows == sorted(table.rows, reverse=True)
    assert table.rows[-1] < 60
    assert all(rows % 3 == 0 for rows in table.rows)


def test_nothing_forbidden_is_ever_written(make_model, sources):
    model = make_model()
    with torch.no_grad():
        model.output_projection.weight[list(SPECIAL)] *= 50
    drawn = sample(model, sources, max_length=9, temperature=3.0)
    beams = [h for hypotheses in beam_search(model, sources, max_length=9) for h in hypotheses]
    for hypothesis in [*greedy(model, sources, max_length=9), *drawn, *beams]:
        assert not SPECIAL & set(hypothesis.tokens)
        assert EOS not in hypothesis.tokens[:-1]


def draws(table: Table, count: int, **settings) -> Tensor:
    """Counts of the first token among `count` draws from the table's first distribution."""
    source = torch.zeros(count, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(1)
    hypotheses = sample(table, source, max_length=1, generator=generator, **settings)
    return torch.bincount(torch.tensor([h.tokens[0] for h in hypotheses]), minlength=table.vocabulary)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_probabilities(temperature):
    table = Table(9)
    counts = draws(table, 4000, temperature=temperature).double()
    logits = table.logits(0, (BOS,)).double() / temperature
    logits[list(SPECIAL)] = -math.inf
    expected = logits.softmax(dim=-1) * 4000
    possible = expected > 0
    assert (counts[~possible] == 0).all()
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < 20.5  # 99.9 % of the chi-square distribution with 5 degrees of freedom


def test_top_k_and_top_p_cut_the_tail():
    table = Table(9)
    logits = table.logits(0, (BOS,)).double()
    logits[list(SPECIAL)] = -math.inf
    probabilities, order = logits.softmax(dim=-1).sort(descending=True)
    assert set(draws(table, 1500, top_k=3).nonzero().flatten().tolist()) == set(order[:3].tolist())
    assert set(draws(table, 200, top_k=1).nonzero().flatten().tolist()) == {order[0].item()}
    assert set(draws(table, 200, top_k=10**6, top_p=1e-9).nonzero().flatten().tolist()) == {order[0].item()}
    between = (probabilities[0] + probabilities[1] / 2).item()
    assert set(draws(table, 1500, top_p=between).nonzero().flatten().tolist()) == set(order[:2].tolist())
    counts = draws(table, 4000, top_k=2)[order[:2]].double()
    share = probabilities[0] / probabilities[:2].sum()
    assert (counts[0] / 4000).item() == pytest.approx(share.item(), abs=0.03)


def test_a_seed_repeats_the_draws(make_model, sources):
    model = make_model()

    def draw(seed):
        return tokens_of(sample(model, sources, max_length=9, generator=torch.Generator().manual_seed(seed)))

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": 0.0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
    ],
)
def test_bad_settings_of_sampling(settings, words):
    with pytest.raises(ValueError, match=words):
        sample(Table(7), torch.zeros(1, 1, dtype=torch.long), max_length=3, **settings)


def test_bad_settings_of_the_beam():
    with pytest.raises(ValueError, match="beam_size is 0"):
        beam_search(Table(7), torch.zeros(1, 1, dtype=torch.long), max_length=3, beam_size=0)
    with pytest.raises(ValueError, match="alpha is -1"):
        beam_search(Table(7), torch.zeros(1, 1, dtype=torch.long), max_length=3, alpha=-1)


def test_length_penalty_is_the_formula_of_wu_et_al():
    assert length_penalty(1, 0.6) == 1.0
    assert length_penalty(7, 1.0) == 2.0
    assert length_penalty(7, 0.0) == 1.0


def test_decoding_keeps_no_graph(make_model, sources):
    """A model in training has gradients on; decoding it must not hold a graph over all steps."""
    model = make_model()
    seen = []
    step = model.step
    model.step = lambda tokens, state: seen.append(step(tokens, state)) or seen[-1]
    greedy(model, sources, max_length=4)
    sample(model, sources, max_length=4)
    beam_search(model, sources, max_length=4)
    assert seen
    assert not any(logits.requires_grad for logits in seen)
