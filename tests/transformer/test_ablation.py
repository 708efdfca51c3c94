import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from transformer.analysis.ablation import ablate_head
from transformer.analysis.reading import MAP_NAMES
from transformer.config import ModelConfig
from transformer.model import Transformer
from transformer.vocabulary import BOS, EOS

SOURCE = torch.tensor([[5, 9, 4, 7, EOS]])
TARGET = torch.tensor([[6, 4, 8, EOS]])


@pytest.fixture(params=["sinusoidal", "rotary", "alibi"])
def model(request):
    torch.manual_seed(3)
    config = ModelConfig(
        source_size=12, target_size=12, d_model=16, num_heads=4, d_ff=24, encoder_layers=2, decoder_layers=2,
        dropout=0.0, positions=request.param,
    )  # fmt: skip
    model = Transformer(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def attention(model, map, layer):
    stack = model.encoder if map == "encoder" else model.decoder
    return stack[layer].cross_attention if map == "cross" else stack[layer].self_attention.attention


def probabilities(model):
    decoder_ids = torch.tensor([[BOS, *TARGET[0, :-1].tolist()]])
    with torch.no_grad():
        predicted = model(SOURCE, decoder_ids).softmax(-1)
    return [predicted[0, position, token].item() for position, token in enumerate(TARGET[0].tolist())]


@pytest.mark.parametrize("map", MAP_NAMES)
@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 2)])
def test_zeroing_is_cutting_the_head_out_of_the_output_projection(model, map, layer, head):
    ablation = ablate_head(model, SOURCE, TARGET, map=map, layer=layer, head=head, mode="zero")
    cut = copy.deepcopy(model)
    attention(cut, map, layer).output_projection.weight.data[:, 4 * head : 4 * (head + 1)] = 0
    assert ablation.before == pytest.approx(probabilities(model), abs=1e-6)
    assert ablation.after == pytest.approx(probabilities(cut), abs=1e-6)
    assert ablation.change == pytest.approx(
        [b - a for a, b in zip(probabilities(model), probabilities(cut), strict=True)], abs=2e-6
    )
    assert max(map_abs(ablation.change)) > 5e-6


def map_abs(numbers):
    return [abs(number) for number in numbers]


@pytest.mark.parametrize("map", MAP_NAMES)
@pytest.mark.parametrize("layer", [0, 1])
def test_attending_evenly_is_having_queries_of_zero(model, map, layer):
    # Without a position bias, equal scores are what a head with zero queries has.
    if model.config.positions == "alibi":
        pytest.skip("ALiBi's bias keeps zero queries from attending evenly")
    head = 1
    ablation = ablate_head(model, SOURCE, TARGET, map=map, layer=layer, head=head, mode="uniform")
    even = copy.deepcopy(model)
    rows = slice(4 * head, 4 * (head + 1))
    attention(even, map, layer).query_projection.weight.data[rows] = 0
    attention(even, map, layer).query_projection.bias.data[rows] = 0
    assert ablation.after == pytest.approx(probabilities(even), abs=1e-6)
    assert max(map_abs(ablation.change)) > 5e-6


def test_alibi_attends_evenly_too(model):
    # Evenly over the tokens before: the mean of what they hold, whatever the distance.
    ablation = ablate_head(model, SOURCE, TARGET, map="decoder", layer=0, head=0, mode="uniform")
    averaged = copy.deepcopy(model)
    attend = attention(averaged, "decoder", 0)
    original = attend.attend

    def by_hand(queries, keys, values, *, mask, bias=None, scope=None):
        kept = original(queries, keys, values, mask=mask, bias=bias)
        scores = attend.scores(queries, keys) + (0 if bias is None else bias)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        running = values[:, 0].cumsum(1) / torch.arange(1, values.shape[2] + 1)[:, None]
        delta = torch.zeros_like(values[:, :, : queries.shape[2]])
        delta[:, 0] = running - (weights @ values)[:, 0]
        return kept + delta.transpose(1, 2).flatten(2) @ attend.output_projection.weight.T

    attend.attend = by_hand
    assert ablation.after == pytest.approx(probabilities(averaged), abs=1e-5)


def test_many_threads_take_heads_out_of_one_model(model):
    places = [(map, layer, head) for map in MAP_NAMES for layer in range(2) for head in range(4)]

    def ablate(place):
        map, layer, head = place
        return ablate_head(model, SOURCE, TARGET, map=map, layer=layer, head=head, mode="uniform")

    alone = [ablate(place) for place in places]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ablate, places)) == alone


@pytest.mark.parametrize(("layer", "head"), [(2, 0), (0, 4), (-1, 0), (0, -1)])
def test_a_head_that_is_not_there_is_refused(model, layer, head):
    with pytest.raises(ValueError, match="no head"):
        ablate_head(model, SOURCE, TARGET, map="cross", layer=layer, head=head, mode="zero")
