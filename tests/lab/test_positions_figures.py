"""What the page of positional encodings sends to the browser, against the paper's formulas computed by hand."""

import base64
import itertools
import json
import math
from pathlib import Path

import numpy as np
import plotly.io
import pytest
import torch
from streamlit.testing.v1 import AppTest

from lab.figures.positions import short_number, spread
from transformer.checkpoint import load
from transformer.data.tasks import TASKS
from transformer.trace import Trace
from transformer.vocabulary import EOS

ROOT = Path(__file__).parents[2]
REVERSE = ROOT / "assets" / "checkpoints" / "reverse"


def visit(**query):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.run()
    app.switch_page("pages/positional_encoding.py")
    for name, value in {"lang": "en", **query}.items():
        app.query_params[name] = str(value)
    app.run()
    assert not app.exception, app.exception
    return app


def figures(app):
    return [plotly.io.from_json(chart.proto.spec) for chart in app.get("plotly_chart")]


def numbers(array):
    """A trace's array: Plotly keeps what came as base64 in that form."""
    if not isinstance(array, dict):
        return np.asarray(array, dtype=float)
    flat = np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"]).astype(float)
    return flat.reshape([int(size) for size in str(array.get("shape", flat.size)).split(",")])


def encoding(length, width, base):
    table = np.empty((length, width))
    for position in range(length):
        for pair in range(width // 2):
            angle = position / base ** (2 * pair / width)
            table[position, 2 * pair], table[position, 2 * pair + 1] = math.sin(angle), math.cos(angle)
    return table


def shown(metric):
    """The number of a metric, written like 1.2×10⁻⁷ or 0.012."""
    digits, _, exponent = metric.value.partition("×10")
    return float(digits) * 10.0 ** int(exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)


def points(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


@pytest.mark.parametrize(("width", "length", "base"), [(64, 64, 10000), (8, 20, 100)])
def test_waves_and_table_are_the_papers(width, length, base):
    (figure,) = figures(visit(step="waves", d_model=width, length=length, base=base))
    expected = encoding(length, width, base)
    heatmap = next(trace for trace in figure.data if trace.type == "heatmap")
    np.testing.assert_allclose(numbers(heatmap.z), expected.T, atol=1e-5)
    np.testing.assert_allclose(numbers(points(figure, "sin 0").y), expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(numbers(points(figure, "cos 1").y), expected[:, 1], atol=1e-5)


def test_dot_products_depend_on_the_distance_alone():
    app = visit(step="dot_product", d_model=32, length=40)
    square, curves = figures(app)
    table = encoding(40, 32, 10000)
    np.testing.assert_allclose(numbers(square.data[0].z), table @ table.T, atol=1e-4)
    for trace in curves.data:
        expected = [sum(math.cos(k * 10000 ** (-2 * i / 32)) for i in range(16)) for k in numbers(trace.x)]
        np.testing.assert_allclose(numbers(trace.y), expected, atol=1e-4)
    assert shown(app.metric[0]) < 1e-4


def test_the_rotation_carries_one_position_to_the_other():
    app = visit(step="rotation", d_model=16, pos=7, k=9, pair=2)
    (figure,) = figures(app)
    table = encoding(20, 16, 10000)
    for place in (7, 16):
        point = points(figure, f"PE<sub>{place}</sub>")
        assert (numbers(point.x)[0], numbers(point.y)[0]) == pytest.approx(
            (table[place, 5], table[place, 4]), abs=1e-5
        )
    assert shown(app.metric[0]) < 1e-5
    angle = 9 * 10000 ** (-4 / 16)
    equations = " ".join(latex.value for latex in app.latex)
    assert f"{angle:.3g}" in equations
    turned = table[7, 4] * math.cos(angle) + table[7, 5] * math.sin(angle)
    assert f"{turned:.3f}" in equations


def test_the_learned_table_is_the_checkpoints():
    app = visit(step="others", kind="learned", rows=16)
    learned, waves = figures(app)
    weights = load(ROOT / "assets" / "checkpoints" / "sort").model.state_dict()
    table = next(value for name, value in weights.items() if "source_positions" in name)[:16]
    expected = torch.nn.functional.cosine_similarity(table[:, None], table[None], dim=-1)
    np.testing.assert_allclose(numbers(learned.data[0].z), expected.numpy(), atol=1e-4)
    sines = encoding(16, 64, 10000)
    np.testing.assert_allclose(numbers(waves.data[0].z), sines @ sines.T / 32, atol=1e-4)
    # The sinusoids' similarity is a matter of the distance alone; the learned table's is not.
    diagonals = [np.diagonal(expected.numpy(), offset) for offset in range(16)]
    largest = max(diagonal.max() - diagonal.min() for diagonal in diagonals)
    assert largest > 0.1
    assert any(f"differ by up to {largest:.2g}, those" in text.value for text in app.markdown)


def test_rotary_scores_depend_on_the_distance_alone_and_one_is_the_traced_score():
    square, curves = figures(
        visit(step="others", kind="rotary", rotary_head="2.3", rotary_query=1, rotary_key=6)
    )
    scores = numbers(square.data[0].z)
    for offset in range(-8, 9):
        diagonal = np.diagonal(scores, offset)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-4)
    checkpoint = load(REVERSE)
    ids = checkpoint.source_vocabulary.encode("3 1 4 1 5 9 2 6").ids
    trace = Trace()
    with torch.inference_mode():
        checkpoint.model.encode(torch.tensor([[*ids, EOS]]), trace)
    traced = trace["encoder.1.self_attention.scores"][0, 2, 1, 6].item()
    diamond = points(curves, "in this text")
    assert (numbers(diamond.x)[0], numbers(diamond.y)[0]) == (5, pytest.approx(traced, abs=1e-5))


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (8, [2.0**-head for head in range(1, 9)]),
        (4, [2.0 ** (-2 * head) for head in range(1, 5)]),
        # Not a power of two: those of 2 heads, then the first of 4, as in the authors' code.
        (3, [2.0**-4, 2.0**-8, 2.0**-2]),
    ],
)
def test_alibi_takes_off_what_press_et_al_say(heads, slopes):
    penalty, factor = figures(visit(step="others", kind="alibi", alibi_heads=heads, alibi_length=12))
    assert len(penalty.data) == len(factor.data) == heads
    distance = np.arange(12)
    for slope, off, left in zip(slopes, penalty.data, factor.data, strict=True):
        np.testing.assert_allclose(numbers(off.x), distance)
        np.testing.assert_allclose(numbers(off.y), -slope * distance, atol=1e-6)
        np.testing.assert_allclose(numbers(left.y), [math.exp(-slope * each) for each in distance], atol=1e-6)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (1.37, "1.4"),
        (0.0662, "0.066"),
        (0.001, "0.001"),
        (1.19e-7, "1.2×10⁻⁷"),
        (-2.5e-12, "-2.5×10⁻¹²"),
    ],
)
def test_short_numbers(number, text):
    assert short_number(number) == text


@pytest.mark.parametrize("heights", [[], [0.5], [0.0, 0.0, 0.0], [1.0, 0.98, -1.0, 0.99], [3.0, 1.0, 2.0]])
def test_labels_keep_their_order_and_a_gap(heights):
    placed = spread(heights, gap=0.24)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    for lower, upper in itertools.pairwise(order):
        assert placed[upper] - placed[lower] >= 0.24 - 1e-9
    if all(abs(a - b) >= 0.24 for a, b in itertools.combinations(heights, 2)):
        assert placed == heights


@pytest.mark.parametrize(
    ("checkpoint", "text"), [("anaphora", "女王看见了厨师"), ("sort", "5 3 8 1"), ("reverse", "5 3 8")]
)
def test_shuffled_words_change_nothing_without_positions(checkpoint, text):
    app = visit(step="shuffle", checkpoint=checkpoint, order="reversed", **{f"sentence_{checkpoint}": text})
    (figure,) = figures(app)
    off, on = (numbers(trace.y) for trace in figure.data)
    assert off.max() < 1e-4
    assert on.max() > 0.05
    assert len(on) == len(text.replace(" ", "")) + 1
    # Against the model itself: what the two orders give with positions on.
    model = load(ROOT / "assets" / "checkpoints" / checkpoint)
    ids = list(model.source_vocabulary.encode(text).ids)
    with torch.inference_mode():
        straight = model.model.encode(torch.tensor([[*ids, EOS]]))[0]
        turned = model.model.encode(torch.tensor([[*reversed(ids), EOS]]))[0]
    back = [*range(len(ids) - 1, -1, -1), len(ids)]
    np.testing.assert_allclose(on, (straight - turned[back]).abs().amax(-1).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "query",
    [
        {"d_model": "abc", "length": "-5", "base": "x"},
        {"d_model": "1000000000", "length": "1e9", "base": "1"},
        {"d_model": "4", "pairs": "10"},
        {"d_model": "5", "pairs": "x"},
        {"step": "nothing"},
        {"step": "rotation", "pair": "999", "pos": "1e9", "k": "-1"},
        {"step": "others", "kind": "rotary", "rotary_text": "😀", "rotary_query": "99"},
        {"step": "others", "kind": "rotary", "rotary_text": "1 " * 500},
        {"step": "shuffle", "checkpoint": "sort", "sentence_sort": "7"},
        {"step": "shuffle", "seed": "-4", "order": "none"},
    ],
)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_odd_addresses_are_passed_over(query, lang):
    app = visit(**{**query, "lang": lang})
    assert figures(app) or app.warning
    assert json.dumps([title.value for title in app.title])


def test_the_examples_of_the_toy_tasks_are_known_to_their_models():
    for name in ("reverse", "sort", "anaphora"):
        vocabulary = load(ROOT / "assets" / "checkpoints" / name).source_vocabulary
        for example in TASKS[name].examples(seed=5, count=20):
            assert not any(vocabulary.encode(example.source).unknown)
