"""A reading against the model asked by hand."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from transformer.analysis.reading import LengthError, read
from transformer.checkpoint import load
from transformer.vocabulary import BOS, EOS

CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"


@pytest.fixture(scope="module")
def checkpoint():
    return load(CHECKPOINTS / "en-zh")


def write_by_hand(model, source_ids, most=60):
    """The most probable token again and again, with nothing kept from one to the next."""
    written = [BOS]
    with torch.no_grad():
        while written[-1] != EOS and len(written) < most:
            logits = model(torch.tensor([source_ids]), torch.tensor([written]))[0, -1].clone()
            logits[[0, BOS]] = -torch.inf
            written.append(int(logits.argmax()))
    return written[1:]


@pytest.mark.parametrize("source", ["If it rains tomorrow, we will stay at home.", "我爱 Python 😀", "x"])
def test_what_the_model_writes_and_how_sure_it_is(checkpoint, source):
    reading = read(checkpoint, source)
    source_ids = [*checkpoint.source_vocabulary.encode(source).ids, EOS]
    expected = write_by_hand(checkpoint.model, source_ids, most=130)
    assert list(reading.source.ids) == source_ids
    assert list(reading.target.ids) == expected
    with torch.no_grad():
        logits = checkpoint.model(torch.tensor([source_ids]), torch.tensor([[BOS, *expected[:-1]]]))[0]
    probabilities = logits.double().softmax(-1)
    for position, token in enumerate(expected):
        assert reading.probabilities[position] == pytest.approx(
            probabilities[position, token].item(), abs=1e-5
        )
    assert reading.generated
    assert reading.decoder_input[0] == "<bos>"
    assert reading.decoder_input[1:] == reading.target.tokens[:-1]


def test_a_given_target_is_read_as_it_is(checkpoint):
    reading = read(checkpoint, "I like books.", "我喜欢书。")
    assert not reading.generated
    assert reading.finished
    assert reading.target.tokens == (*"我喜欢书。", "<eos>")
    assert reading.weights("decoder").shape == (3, 6, 6, 6)
    assert reading.weights("cross").shape[2:] == (6, len(reading.source.tokens))


def test_a_wider_beam_is_never_less_probable(checkpoint):
    def log_probability(beam):
        reading = read(checkpoint, "He told me that he had never been there before.", beam=beam)
        return (
            torch.tensor(reading.probabilities).log().sum().item()
            / ((5 + len(reading.probabilities)) / 6) ** 0.6
        )

    assert log_probability(8) >= log_probability(1) - 1e-4


def test_what_cannot_be_read_is_said(checkpoint):
    with pytest.raises(LengthError) as caught:
        read(checkpoint, "word " * 50, limit=20)
    assert (caught.value.side, caught.value.length, caught.value.limit) == ("source", 50, 20)
    with pytest.raises(LengthError) as caught:
        read(checkpoint, "word", "词" * 21, limit=20)
    assert (caught.value.side, caught.value.length) == ("target", 21)
    for source, target in (("", None), (" \n ", None), ("word", "  ")):
        with pytest.raises(ValueError, match="empty"):
            read(checkpoint, source, target)
    stopped = read(checkpoint, "word " * 20, limit=20)
    assert stopped.finished or len(stopped.target.ids) == 21


def test_many_threads_read_with_one_model(checkpoint):
    sentences = ["I like books.", "Where did you go?", "My father is a doctor.", "It is raining."] * 3
    alone = [read(checkpoint, sentence) for sentence in sentences]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda sentence: read(checkpoint, sentence), sentences))
    for one, other in zip(alone, together, strict=True):
        assert one.target == other.target
        for name, tensor in one.tensors.items():
            torch.testing.assert_close(tensor, other.tensors[name], atol=1e-6, rtol=0)
