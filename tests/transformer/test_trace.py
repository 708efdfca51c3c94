"""The trace: every tensor under its name, the equations between them, edits, and many threads at once."""

import itertools
import math
import threading

import pytest
import torch

from transformer.trace import Trace
from transformer.vocabulary import BOS

ATTENTION = ("queries", "keys", "values", "scores", "mask", "weights", "head_outputs", "output")
RESIDUALS = ("residual_before", "residual_after")


def expected_names(encoder_layers, decoder_layers, *, added_positions, bias):
    names = {"logits"}
    for stack, layers, attentions in (
        ("encoder", encoder_layers, ("self_attention",)),
        ("decoder", decoder_layers, ("self_attention", "cross_attention")),
    ):
        names |= {f"{stack}.embeddings", f"{stack}.output"}
        if added_positions:
            names.add(f"{stack}.positions")
        for i, attention in itertools.product(range(layers), attentions):
            names |= {f"{stack}.{i}.{attention}.{what}" for what in (*ATTENTION, *RESIDUALS)}
            if bias and attention == "self_attention":
                names.add(f"{stack}.{i}.{attention}.position_bias")
        names |= {
            f"{stack}.{i}.feed_forward.{what}"
            for i in range(layers)
            for what in ("hidden", "output", *RESIDUALS)
        }
    return names


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "alibi", "none"])
def test_names(make_model, batch, positions):
    model = make_model(positions=positions, encoder_layers=2, decoder_layers=3)
    trace = Trace()
    model(*batch, trace)
    expected = expected_names(
        2, 3, added_positions=positions in ("sinusoidal", "learned"), bias=positions == "alibi"
    )
    assert set(trace) == expected
    assert len(trace) == len(expected)


def test_shapes(make_model, batch):
    trace = Trace()
    make_model()(*batch, trace)
    for what in ("scores", "mask", "weights"):
        assert trace[f"encoder.0.self_attention.{what}"].shape == (3, 2, 6, 6)
        assert trace[f"decoder.1.self_attention.{what}"].shape == (3, 2, 5, 5)
        assert trace[f"decoder.1.cross_attention.{what}"].shape == (3, 2, 5, 6)
    for what in ("keys", "values"):
        assert trace[f"decoder.0.cross_attention.{what}"].shape == (3, 2, 6, 8)
    for what in ("queries", "head_outputs"):
        assert trace[f"decoder.0.cross_attention.{what}"].shape == (3, 2, 5, 8)
    assert trace["encoder.0.feed_forward.hidden"].shape == (3, 6, 24)
    assert trace["decoder.0.self_attention.residual_before"].shape == (3, 5, 16)
    assert trace["encoder.positions"].shape == trace["encoder.embeddings"].shape == (3, 6, 16)
    assert trace["logits"].shape == (3, 5, 11)
    assert trace["encoder.0.self_attention.mask"].dtype == torch.bool


@pytest.mark.parametrize(
    ("positions", "norm", "scale"),
    list(
        itertools.product(
            ["sinusoidal", "learned", "rotary", "alibi", "none"],
            ["post", "pre", "deepnorm"],
            ["sqrt", "none", "linear"],
        )
    ),
)
def test_the_equations_of_attention_hold_between_what_is_traced(make_model, batch, positions, norm, scale):
    model = make_model(positions=positions, norm=norm, scale=scale)
    trace = Trace()
    logits = model(*batch, trace)
    torch.testing.assert_close(logits, model(*batch), atol=1e-4, rtol=1e-4)
    factor = {"sqrt": 1 / math.sqrt(8), "none": 1.0, "linear": 1 / 8}[scale]
    for place in [name.removesuffix(".weights") for name in trace if name.endswith(".weights")]:
        part = {what: trace[f"{place}.{what}"].double() for what in ATTENTION}
        mask = trace[f"{place}.mask"]
        expected = part["queries"] @ part["keys"].transpose(-2, -1) * factor
        torch.testing.assert_close(part["scores"], expected, atol=1e-5, rtol=1e-5)
        if f"{place}.position_bias" in trace.tensors:
            expected = part["scores"] + trace[f"{place}.position_bias"]
        else:
            expected = part["scores"]
        expected = expected.masked_fill(~mask, -math.inf).softmax(dim=-1)
        torch.testing.assert_close(part["weights"], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            part["weights"].sum(dim=-1), torch.ones_like(part["weights"][..., 0]), atol=1e-5, rtol=0
        )
        assert (part["weights"][~mask] == 0).all()
        torch.testing.assert_close(
            part["weights"] @ part["values"], part["head_outputs"], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_residual_stream_is_one_stream(make_model, batch, norm):
    model = make_model(norm=norm)
    trace = Trace()
    model(*batch, trace)
    start = trace["decoder.embeddings"] + trace["decoder.positions"]
    torch.testing.assert_close(trace["decoder.0.self_attention.residual_before"], start)
    parts = [
        f"decoder.{i}.{part}"
        for i in (0, 1)
        for part in ("self_attention", "cross_attention", "feed_forward")
    ]
    for one, following in itertools.pairwise(parts):
        assert torch.equal(trace[f"{one}.residual_after"], trace[f"{following}.residual_before"])
    for part in parts:
        total = trace[f"{part}.residual_before"] + trace[f"{part}.output"]
        if norm == "pre":
            torch.testing.assert_close(trace[f"{part}.residual_after"], total)
        else:
            assert not torch.allclose(trace[f"{part}.residual_after"], total)


def test_a_batch_without_padding_is_traced_with_its_masks_and_computed_without(make_model, monkeypatch):
    model = make_model()
    source, target = torch.tensor([[5, 6, 7]]), torch.tensor([[BOS, 8]])
    trace = Trace()
    traced = model(source, target, trace)
    for name in ("encoder.0.self_attention", "decoder.1.cross_attention"):
        assert trace[f"{name}.mask"].all()
    assert trace["decoder.0.self_attention.mask"][0, 0].tolist() == [[True, False], [True, True]]
    masks = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def watched(*tensors, attn_mask=None, **settings):
        masks.append(attn_mask is not None)
        return kernel(*tensors, attn_mask=attn_mask, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    torch.testing.assert_close(model(source, target), traced, atol=1e-5, rtol=1e-5)
    assert masks == [False, False, True, False, True, False]


def test_only_what_was_asked_for_is_kept(make_model, batch):
    trace = Trace(keep=["encoder.*.weights", "logits"])
    make_model()(*batch, trace)
    assert set(trace) == {"encoder.0.self_attention.weights", "encoder.1.self_attention.weights", "logits"}
    nothing = Trace(keep=())
    make_model()(*batch, nothing)
    assert len(nothing) == 0


def test_every_traced_tensor_can_be_edited_and_acts_on_what_follows(make_model, batch):
    model = make_model(positions="alibi")
    everything = Trace()
    before = model(*batch, everything)
    for name, tensor in everything.tensors.items():
        edit = (
            (lambda mask: mask.roll(1, dims=-1))
            if tensor.dtype == torch.bool
            else (lambda x: x * 0.5 + 0.3 * x.roll(1, 1))
        )
        trace = Trace(edits={name: edit})
        after = model(*batch, trace)
        trace.check_edits_used()
        assert not torch.allclose(before, after, atol=1e-6), name
        assert after.isfinite().all(), name
        torch.testing.assert_close(trace[name], edit(tensor), msg=name)


def test_an_edit_of_the_weights_is_what_multiplies_the_values(make_model, batch):
    name = "decoder.1.cross_attention"

    def uniform(weights):
        return torch.full_like(weights, 1 / 6)

    trace = Trace(edits={f"{name}.weights": uniform})
    make_model()(*batch, trace)
    mean = trace[f"{name}.values"].mean(dim=2, keepdim=True).expand(-1, -1, 5, -1)
    torch.testing.assert_close(trace[f"{name}.head_outputs"], mean)


def test_a_misspelt_edit_is_found(make_model, batch):
    trace = Trace(edits={"encoder.0.self_attention.weight": lambda x: x, "logits": lambda x: x})
    make_model()(*batch, trace)
    with pytest.raises(ValueError, match=r"named encoder\.0\.self_attention\.weight\."):
        trace.check_edits_used()


def test_an_edit_must_keep_the_shape(make_model, batch):
    trace = Trace(edits={"decoder.0.self_attention.weights": lambda x: x[:, :1]})
    with pytest.raises(
        ValueError, match=r"decoder\.0\.self_attention\.weights returned shape \(3, 1, 5, 5\)"
    ):
        make_model()(*batch, trace)


def test_a_traced_tensor_can_be_differentiated(make_model, batch):
    trace = Trace(keep="encoder.0.self_attention.weights")
    logits = make_model()(*batch, trace)
    (gradient,) = torch.autograd.grad(logits[0].sum(), trace["encoder.0.self_attention.weights"])
    assert gradient[0].abs().sum() > 0
    assert (gradient[1:] == 0).all()


def test_threads_that_trace_one_model_at_once_get_their_own_tensors(make_model):
    model = make_model()
    sources = [torch.randint(4, 13, (1, length)) for length in range(2, 10)]
    target = torch.tensor([[1, 5, 6]])

    def run(source, *, scaled):
        edits = {"encoder.0.self_attention.values": lambda x: x * 2} if scaled else {}
        trace = Trace(edits=edits)
        with torch.no_grad():
            model(source, target, trace)
        return trace.tensors

    expected = [run(source, scaled=i % 2 == 0) for i, source in enumerate(sources)]
    results = {}
    barrier = threading.Barrier(len(sources))

    def work(index):
        torch.set_num_threads(1)
        barrier.wait()
        for _ in range(5):
            results[index] = run(sources[index], scaled=index % 2 == 0)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(sources))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, tensors in enumerate(expected):
        assert results[index].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(results[index][name], tensor), name
    assert not any(isinstance(value, torch.Tensor) for m in model.modules() for value in vars(m).values())
