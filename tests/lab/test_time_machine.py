"""What the time machine shows is what the snapshots hold, and its numbers are those of the formulas."""

import base64
import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from lab.figures import time_machine
from lab.figures.heads import WEIGHT_ERROR
from lab.figures.time_machine import (
    BUCKETS,
    Moment,
    even_entropy,
    extremes,
    film_of,
    loss_curves,
    mean_entropy,
    moment_from_json,
    nearest_step,
    opening_head,
    right_places,
    share_on,
    spread_steps,
    time_machine_payload,
)
from transformer.checkpoint import ProbeText, Snapshots
from transformer.training_folder import read_metrics

CHECKPOINTS = Path(__file__).parents[2] / "assets" / "checkpoints"
NAMES = {
    "encoder": "encoder.{}.self_attention.weights",
    "decoder": "decoder.{}.self_attention.weights",
    "cross": "decoder.{}.cross_attention.weights",
}
CAUSAL = np.tril(np.ones((4, 4), dtype=bool))


def payload_of(film, places=None, curves=None, **named):
    return time_machine_payload(
        film, **{"source": "reverse", "probe": 0, **named}, places=places, curves=curves
    )


def sent(payload):
    """The weights as the browser has them, (N, L, H, Q, K)."""
    shape = [payload[name] for name in ("layers", "heads", "queries", "keys")]
    words = np.frombuffer(payload["weights"][16:], dtype="<u2").astype(np.float64) / 65535
    return words.reshape([len(payload["steps"]), *shape])


def snapshots_of(weights, steps, tokens, name="decoder.0.cross_attention.weights"):
    """Snapshots of one probe whose weights at each step are given, (H, Q, K) each."""
    snapshots = Snapshots([ProbeText(source=tokens, target=("<bos>", *tokens[:-1]), predicted=tokens)])
    for step, each in zip(steps, weights, strict=True):
        snapshots.add(step, [{name: torch.tensor(each)}])
    return snapshots


@pytest.mark.parametrize("checkpoint", ["reverse", "anaphora", "zh-en"])
@pytest.mark.parametrize("key", NAMES)
def test_every_weight_of_every_step_is_the_files(checkpoint, key):
    folder = CHECKPOINTS / checkpoint
    tensors = safetensors.numpy.load_file(folder / "snapshots.safetensors")
    description = json.loads((folder / "snapshots.json").read_text(encoding="utf-8"))
    film = film_of(Snapshots.load(folder), 1, key)
    payload = payload_of(film)
    weights = sent(payload)
    assert payload["steps"] == description["steps"]
    assert payload["recorded"] == len(description["steps"])
    for n, step in enumerate(description["steps"]):
        for layer in range(payload["layers"]):
            expected = tensors[f"1/{step}/{NAMES[key].format(layer)}"].astype(np.float64)
            np.testing.assert_allclose(weights[n, layer], expected, rtol=0, atol=WEIGHT_ERROR + 1e-7)
    assert f"1/0/{NAMES[key].format(payload['layers'])}" not in tensors
    probe = description["probes"][1]
    assert payload["query_tokens"] == probe["source" if key == "encoder" else "target"]
    assert payload["key_tokens"] == probe["target" if key == "decoder" else "source"]
    assert payload["predicted_tokens"] == (None if key == "encoder" else probe["predicted"])
    assert payload["weights"][:16].hex() == payload["hash"]
    bits = np.unpackbits(np.frombuffer(base64.b64decode(payload["mask"]), np.uint8), bitorder="little")
    size = payload["queries"] * payload["keys"]
    mask = bits[:size].reshape(payload["queries"], payload["keys"]).astype(bool)
    assert (mask == (np.tril(np.ones_like(mask)) if key == "decoder" else True)).all()
    json.dumps({name: value for name, value in payload.items() if name != "weights"}, allow_nan=False)


def test_entropy_is_log2_of_the_keys_for_even_rows_and_nothing_for_a_single_key():
    full = np.ones((3, 8), dtype=bool)
    assert mean_entropy(np.full((3, 8), 1 / 8), full) == pytest.approx(3, abs=1e-12)
    assert even_entropy(full) == pytest.approx(3, abs=1e-12)
    assert mean_entropy(np.eye(3, 8), full) == 0
    # A quarter, a quarter, a half: 2/4 + 2/4 + 1/2 bits; unscaled, as after rounding.
    row = np.array([[0.25, 0.25, 0.5]]) * 1.0003
    assert mean_entropy(row, np.ones((1, 3), dtype=bool)) == pytest.approx(1.5, abs=1e-12)


def test_entropy_under_a_mask_counts_the_rows_with_a_choice():
    even = CAUSAL / CAUSAL.sum(axis=1, keepdims=True)
    expected = (math.log2(2) + math.log2(3) + math.log2(4)) / 3
    assert mean_entropy(even, CAUSAL) == pytest.approx(expected, abs=1e-12)
    assert even_entropy(CAUSAL) == pytest.approx(expected, abs=1e-12)
    alone = np.ones((1, 1), dtype=bool)
    assert math.isnan(mean_entropy(np.ones((1, 1)), alone))
    assert math.isnan(even_entropy(alone))


def test_entropies_of_a_training_against_a_sum_by_hand():
    film = film_of(Snapshots.load(CHECKPOINTS / "reverse"), 0, "cross")
    entropy = payload_of(film)["entropy"]
    tensors = safetensors.numpy.load_file(CHECKPOINTS / "reverse" / "snapshots.safetensors")
    for n, step in ((0, 0), (9, 77), (15, 2000)):
        total = 0.0
        for row in tensors[f"0/{step}/decoder.0.cross_attention.weights"][1].tolist():
            shares = [weight / sum(row) for weight in row]
            total -= sum(share * math.log2(share) for share in shares if share)
        assert entropy[n][0][1] == pytest.approx(total / 9, abs=1e-5)
    # What the page tells: from almost even to structured.
    assert entropy[0][0][1] > 0.9 * math.log2(9)
    assert entropy[15][0][1] < 0.5


@pytest.mark.parametrize(
    ("task", "written", "rows"),
    [
        ("copy", "7 7 4", [[0], [1], [2], []]),
        ("reverse", "4 7 7", [[2], [1], [0], []]),
        ("sort", "4 7 7", [[2], [0, 1], [0, 1], []]),
    ],
)
def test_right_places(task, written, rows):
    tokens = (*written.split(), "<eos>")
    probe = ProbeText(source=("7", "7", "4", "<eos>"), target=("<bos>", *tokens[:-1]), predicted=tokens)
    places = right_places(task, probe)
    assert [np.flatnonzero(row).tolist() for row in places] == rows
    for other in {"copy", "reverse", "sort"} - {task}:
        if (task, other) not in (("reverse", "sort"), ("sort", "reverse")):
            assert right_places(other, probe) is None
    assert right_places("anaphora", probe) is None


def test_no_right_places_where_the_target_is_not_the_answer():
    wrong = ("4", "9", "7", "<eos>")
    probe = ProbeText(source=("7", "7", "4", "<eos>"), target=("<bos>", *wrong[:-1]), predicted=wrong)
    assert all(right_places(task, probe) is None for task in ("copy", "reverse", "sort"))
    short = ProbeText(source=("7", "4", "<eos>"), target=("<bos>", "4"), predicted=("4", "<eos>"))
    assert right_places("reverse", short) is None


def test_the_share_on_the_right_token():
    places = np.array([[0, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=bool)
    weights = np.array([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    assert share_on(weights, places) == pytest.approx((0.7 + 0.5) / 2)
    film = film_of(Snapshots.load(CHECKPOINTS / "reverse"), 0, "cross")
    probe = Snapshots.load(CHECKPOINTS / "reverse").probes[0]
    payload = payload_of(film, places=right_places("reverse", probe))
    assert payload["even_share"] == pytest.approx(1 / 9)
    last = film.weights[-1, 0, 1]
    by_hand = np.mean([last[row, 7 - row] for row in range(8)])
    assert payload["share"][-1][0][1] == pytest.approx(by_hand, abs=1e-5)
    assert payload["share"][0][0][1] == pytest.approx(1 / 9, abs=0.02)
    assert payload["share"][-1][0][1] > 0.9


def test_the_page_opens_on_the_sharpest_head_between_words():
    film = film_of(Snapshots.load(CHECKPOINTS / "reverse"), 0, "cross")
    peaks = film.weights[-1, :, :, :, :-1].max(axis=-1).mean(axis=-1)
    assert peaks[opening_head(film)] == peaks.max()
    assert opening_head(film) == (0, 1)


def test_a_diverged_step_is_marked_and_sent_as_no_number():
    good = np.full((2, 3, 3), 1 / 3, dtype=np.float32)
    bad = good.copy()
    bad[1, 2, 0] = np.nan
    film = film_of(snapshots_of([good, bad], [0, 7], ("a", "b", "<eos>")), 0, "cross")
    payload = payload_of(film)
    assert payload["whole"] == [[[True, True]], [[True, False]]]
    assert payload["entropy"][1][0] == [pytest.approx(math.log2(3), abs=1e-4), None]
    assert (sent(payload)[1, 0, 1, 2] == [0, *sent(payload)[0, 0, 1, 2, 1:]]).all()
    assert opening_head(film) in ((0, 0), (0, 1))


def test_a_single_snapshot_makes_a_film():
    film = film_of(snapshots_of([np.eye(3, dtype=np.float32)[None]], [0], ("a", "b", "<eos>")), 0, "cross")
    payload = payload_of(film)
    assert (payload["steps"], payload["entropy"]) == ([0], [[[0.0]]])


def test_a_decoder_that_looked_ahead_has_no_mask():
    even = np.full((1, 3, 3), 1 / 3, dtype=np.float32)
    name = "decoder.0.self_attention.weights"
    causal = np.tril(np.ones((1, 3, 3), dtype=np.float32)) / np.array([[[1], [2], [3]]], dtype=np.float32)
    assert film_of(snapshots_of([even], [0], ("a", "b", "<eos>"), name), 0, "decoder").mask.all()
    masked = film_of(snapshots_of([causal], [0], ("a", "b", "<eos>"), name), 0, "decoder").mask
    assert (masked == np.tril(np.ones((3, 3)))).all()


def test_what_does_not_fit_is_refused():
    good = np.full((1, 3, 3), 1 / 3, dtype=np.float32)
    snapshots = snapshots_of([good], [0], ("a", "b", "<eos>"))
    with pytest.raises(ValueError, match="was not recorded"):
        film_of(snapshots, 0, "encoder")
    with pytest.raises(ValueError, match="has 3 queries and 3 keys"):
        film_of(snapshots_of([good], [0], ("a", "<eos>")), 0, "cross")
    with pytest.raises(ValueError, match="not text"):
        film_of(snapshots_of([good], [0], ("a", 2, "<eos>")), 0, "cross")
    with pytest.raises(ValueError, match="No step"):
        film_of(Snapshots(snapshots.probes), 0, "cross")


def test_too_many_steps_are_thinned_and_too_many_bytes(monkeypatch):
    assert spread_steps([0, 1, 2, 5], 4) == [0, 1, 2, 5]
    assert spread_steps(list(range(100)), 4) == [0, 33, 66, 99]
    good = np.full((1, 3, 3), 1 / 3, dtype=np.float32)
    snapshots = snapshots_of([good] * 200, range(200), ("a", "b", "<eos>"))
    film = film_of(snapshots, 0, "cross")
    assert (len(film.steps), film.steps[0], film.steps[-1], film.recorded) == (64, 0, 199, 200)
    monkeypatch.setattr(time_machine, "MOST_BYTES", 5 * 2 * 9)
    assert len(film_of(snapshots, 0, "cross").steps) == 5


def test_the_nearest_step_on_the_logarithmic_axis():
    steps = [0, 1, 10, 100, 1000]
    assert [nearest_step(steps, asked) for asked in (-5, 0, 3, 4, 31, 34, 400, 10**12)] == [
        0, 0, 1, 10, 10, 100, 1000, 1000,
    ]  # fmt: skip


def test_the_losses_are_those_of_the_metrics():
    metrics = read_metrics(CHECKPOINTS / "reverse")
    curves = loss_curves(metrics)
    for name, event in (("train", "StepEnd"), ("dev", "Evaluated")):
        told = {line["step"]: line["loss"] for line in metrics if line["event"] == event}
        shown = dict(zip(curves[name]["steps"], curves[name]["values"], strict=True))
        assert shown.keys() <= told.keys()
        assert all(shown[step] == pytest.approx(told[step], rel=1e-4) for step in shown)
        assert min(told.values()) == pytest.approx(min(shown.values()), rel=1e-4)
        assert max(told.values()) == pytest.approx(max(shown.values()), rel=1e-4)
        assert {min(told), max(told)} <= shown.keys()
        assert curves[name]["broken"] is None
    assert len(curves["dev"]["steps"]) == 8
    assert curves["last"] == 2000
    assert curves["top"] == pytest.approx(
        max(line["loss"] for line in metrics if line["event"] == "StepEnd"), rel=1e-4
    )


def test_a_loss_that_is_no_number_ends_its_curve():
    lines = [{"event": "StepEnd", "step": step, "loss": 4.0 - step} for step in (1, 2)]
    lines += [
        {"event": "StepEnd", "step": step, "loss": loss}
        for step, loss in ((3, math.inf), (4, math.nan), (5, 1.0))
    ]
    lines += [
        {"event": "StepEnd", "step": 6, "loss": "x"},
        {"step": 7},
        {"event": "Evaluated", "step": 6, "loss": math.nan},
    ]
    curves = loss_curves(lines)
    assert (curves["train"]["steps"], curves["train"]["broken"]) == ([1, 2], 3)
    assert (curves["dev"]["steps"], curves["dev"]["broken"]) == ([], 6)
    assert curves["last"] == 7
    json.dumps(curves, allow_nan=False)
    assert loss_curves([])["last"] == 0


def test_a_loss_that_blew_up_leaves_the_picture_and_its_height_is_said():
    curves = loss_curves(
        [{"event": "StepEnd", "step": s, "loss": loss} for s, loss in enumerate((4.0, 3.0, 9e6), start=1)]
    )
    assert (curves["top"], curves["over"]) == (8.0, 9e6)


def test_a_long_curve_keeps_its_extremes():
    rng = np.random.default_rng(0)
    steps = np.arange(1, 20001)
    values = rng.normal(size=steps.size)
    values[12345], values[777] = 50.0, -50.0
    kept = extremes(steps, values)
    assert kept.size <= 2 * BUCKETS + 2
    assert {0, 777, 12345, steps.size - 1} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()


def test_reports_of_the_picture_are_checked():
    payload = payload_of(film_of(Snapshots.load(CHECKPOINTS / "reverse"), 0, "cross"))
    default = Moment(layer=0, head=1, step=2000)
    told = {"source": "reverse", "map": "cross", "layer": 1, "head": 3, "step": 77}
    assert moment_from_json(told, payload, default) == Moment(layer=1, head=3, step=77)
    # Another kind of attention keeps the step, another training nothing.
    assert moment_from_json({**told, "map": "encoder"}, payload, default) == Moment(layer=0, head=1, step=77)
    assert moment_from_json({**told, "source": "sort"}, payload, default) == default
    for wrong in (None, "cross", [], {**told, "layer": 2, "step": 78}, {**told, "head": True, "step": "77"}):
        assert moment_from_json(wrong, payload, default) == default
