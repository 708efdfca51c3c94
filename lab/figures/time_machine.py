"""Attention of a probe sentence at the recorded steps of a training, made ready for the picture that replays it.

A training records the attention of its probe sentences at logarithmically spaced steps
(`transformer.checkpoint.Snapshots`). A film is one kind of attention (section 3.2.3) of one probe at all of these steps.
It is sent to the browser once, as in `lab.figures.heads`, so that moving through the steps needs no server. What is said
about a step in numbers is computed here, from the recorded weights:

- the entropy of a row of weights ``H = -sum_k w_k log2 w_k`` in bits: 0 where it looks at one key, ``log2 n`` where it
  looks at n keys evenly;
- for toy tasks whose right place is known, the share of the weight that lies on it.

Legend: N recorded steps, L layers, H heads, Q queries, K keys.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.figures.curves import DEV, TRAIN, first_broken
from lab.figures.heads import MapKey, encode_weights
from transformer.analysis.reading import module_name
from transformer.checkpoint import ProbeText, Snapshots

Weights = NDArray[np.float32]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]

# More steps cannot be told apart on a slider; what is longer than these bytes takes too long to send.
MOST_STEPS = 64
MOST_BYTES = 8 * 2**20
# A curve is drawn about 500 pixels wide; of the steps in so many equal parts of its axis only the extremes are kept.
BUCKETS = 250
# A loss that grew beyond so many times its first value leaves the picture: that the others had no shape left.
TALLEST = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """One kind of attention over one probe at the recorded steps.

    Attributes:
        key: Which attention: ``encoder``, ``decoder`` or ``cross``.
        steps: The N steps, rising.
        recorded: How many steps were recorded, with those that are left out here.
        weights: (N, L, H, Q, K); rows sum to 1 up to the rounding of 16-bit floats. NaN where the model had diverged.
        mask: (Q, K), True where the query may attend to the key.
        query_tokens: Q tokens down the left. For decoder rows the token that is read.
        key_tokens: K tokens across the top.
        predicted_tokens: Q tokens that the rows should predict; None for the encoder.
    """

    key: MapKey
    steps: tuple[int, ...]
    recorded: int
    weights: Weights
    mask: Mask
    query_tokens: tuple[str, ...]
    key_tokens: tuple[str, ...]
    predicted_tokens: tuple[str, ...] | None

    @property
    def whole(self) -> Mask:
        """(N, L, H), whether all weights of a head at a step are numbers."""
        return np.asarray(np.isfinite(self.weights).all(axis=(-2, -1)))


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What is shown: a head and a step; layers and heads count from 0."""

    layer: int
    head: int
    step: int


def film_of(snapshots: Snapshots, probe: int, key: MapKey) -> Film:
    """Cut the film of one probe and one kind of attention.

    Args:
        snapshots: What a training recorded.
        probe: Number of the probe, from 0.
        key: Which attention.

    Raises:
        ValueError: If that was not recorded, or does not fit the probe's tokens.
    """
    text = snapshots.probes[probe]
    sides: dict[MapKey, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...] | None]] = {
        "encoder": (text.source, text.source, None),
        "decoder": (text.target, text.target, text.predicted),
        "cross": (text.target, text.source, text.predicted),
    }
    queries, keys, predicted = sides[key]
    steps = spread_steps(snapshots.steps, _affordable(snapshots, probe, key))
    weights = np.stack([_layers(snapshots, probe, step, key) for step in steps])
    if not all(isinstance(token, str) for token in (*queries, *keys, *(predicted or ()))):
        raise ValueError(f"The tokens of probe {probe} are not text.")
    if weights.shape[3:] != (len(queries), len(keys)) or len(predicted or queries) != len(queries):
        raise ValueError(
            f"The recorded {key} attention of probe {probe} has {weights.shape[3]} queries and {weights.shape[4]} keys; "
            f"its text has {len(queries)} and {len(keys)}."
        )
    return Film(
        key=key,
        steps=tuple(steps),
        recorded=len(snapshots.steps),
        weights=weights,
        mask=_mask(key, weights),
        query_tokens=queries,
        key_tokens=keys,
        predicted_tokens=predicted,
    )


def _layers(snapshots: Snapshots, probe: int, step: int, key: MapKey) -> Weights:
    """Weights (L, H, Q, K) of all layers at one step."""
    layers: list[Weights] = []
    while True:
        try:
            tensor = snapshots.weights(probe, step, f"{module_name(key, len(layers))}.weights")
        except KeyError:
            break
        layers.append(tensor.numpy())
    if not layers or any(layer.shape != layers[0].shape or layer.ndim != 3 for layer in layers):
        raise ValueError(f"The {key} attention of probe {probe} at step {step} was not recorded.")
    return np.stack(layers)


def _mask(key: MapKey, weights: Weights) -> Mask:
    """Which keys the queries may attend to: for the decoder those up to their own place, unless any later one got weight."""
    queries, keys = weights.shape[-2:]
    everything = np.ones((queries, keys), dtype=bool)
    if key != "decoder":
        return everything
    later = ~np.tril(everything)
    return everything if np.nan_to_num(weights[..., later]).any() else ~later


def _affordable(snapshots: Snapshots, probe: int, key: MapKey) -> int:
    """How many steps can be shown."""
    if not snapshots.steps:
        raise ValueError("No step was recorded.")
    size = 2 * _layers(snapshots, probe, snapshots.steps[0], key).size
    return max(2, min(MOST_STEPS, MOST_BYTES // size))


def spread_steps(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` of the steps, evenly over their numbers in the list, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(place)] for place in np.linspace(0, len(steps) - 1, most)]


def nearest_step(steps: Sequence[int], step: float) -> int:
    """The recorded step that is nearest to `step` on a logarithmic axis."""
    return min(steps, key=lambda each: abs(math.log1p(each) - math.log1p(max(step, 0))))


def opening_head(film: Film) -> tuple[int, int]:
    """Layer and head whose rows lie most on a single word at the last step; marks of beginning and end are none."""
    words = slice(1, None) if film.key == "decoder" else slice(0, max(1, len(film.key_tokens) - 1))
    last = np.nan_to_num(film.weights[-1, ..., words])
    if not last.size:
        return 0, 0
    sharp = last.max(axis=-1).mean(axis=-1)
    layer, head = divmod(int(sharp.argmax()), sharp.shape[1])
    return layer, head


def mean_entropy(weights: NDArray[np.floating], mask: Mask) -> Numbers:
    """Mean entropy in bits of the rows that may attend to two keys or more.

    Rows are scaled to sum to 1 first, as they did before they were rounded.

    Args:
        weights: (..., Q, K).
        mask: (Q, K), True where the query may attend.

    Returns:
        (...); NaN where no row has a choice, or a weight is not a number.
    """
    rows = mask.sum(axis=1) >= 2
    if not rows.any():
        return np.full(weights.shape[:-2], np.nan)
    shares = np.where(mask, weights, 0.0)[..., rows, :].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = shares / shares.sum(axis=-1, keepdims=True)
        bits = -shares * np.log2(np.where(shares == 0, 1.0, shares))
    return np.asarray(bits.sum(axis=-1).mean(axis=-1))


def even_entropy(mask: Mask) -> float:
    """What `mean_entropy` is where every row is even: the mean of log2 of the keys a row may attend to."""
    counts = mask.sum(axis=1)
    counts = counts[counts >= 2]
    return float(np.log2(counts).mean()) if counts.size else math.nan


def right_places(task: str, probe: ProbeText) -> Mask | None:
    """Where in the source each written token of a toy task stands, where that is known.

    Args:
        task: The task a model was trained on.
        probe: A probe of that training.

    Returns:
        (Q, K), True at the source positions from which a row of cross-attention can copy what it should predict; rows
        that copy nothing (the end) have none. None for other tasks, or if the target is not the task's answer.
    """
    source, written = probe.source[:-1], probe.predicted[:-1]
    if len(written) != len(source):
        return None
    places: list[tuple[int, ...]]
    if task == "copy":
        places = [(place,) for place in range(len(source))]
    elif task == "reverse":
        places = [(place,) for place in reversed(range(len(source)))]
    elif task == "sort":
        # An equal digit elsewhere is as good.
        places = [tuple(i for i, token in enumerate(source) if token == digit) for digit in written]
        if any(before > after for before, after in pairwise(written)):
            return None
    else:
        return None
    right = np.zeros((len(probe.predicted), len(probe.source)), dtype=bool)
    for row, columns in enumerate(places):
        if not columns or any(source[column] != written[row] for column in columns):
            return None
        right[row, list(columns)] = True
    return right


def share_on(weights: NDArray[np.floating], places: Mask) -> Numbers:
    """Share of the weight that lies on `places`: the mean over the rows that have any.

    Args:
        weights: (..., Q, K).
        places: (Q, K).
    """
    rows = places.any(axis=1)
    return np.asarray(
        np.where(places, weights, 0.0)[..., rows, :].sum(axis=-1, dtype=np.float64).mean(axis=-1)
    )


def loss_curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The losses of a training as the picture draws them, from the lines of its metrics.

    Args:
        metrics: What `transformer.training_folder.read_metrics` returned.

    Returns:
        ``train`` and ``dev``, each ``steps``, ``values`` and ``broken`` (the first step whose loss is NaN or infinite,
        where the curve ends, or None); ``last``, the last step; ``top``, the largest loss that the axis shows; ``over``,
        the largest that left it, or None.
    """
    train, dev = _series(metrics, "StepEnd"), _series(metrics, "Evaluated")
    shown = [value for curve in (train, dev) for value in curve["values"]]
    first = [curve["values"][0] for curve in (train, dev) if curve["values"]]
    highest = max(shown, default=1.0)
    top = min(highest, TALLEST * max(first)) if first else 1.0
    return {
        "train": {**train, "colour": TRAIN},
        "dev": {**dev, "colour": DEV},
        "last": max((line["step"] for line in metrics), default=0),
        "top": top or 1.0,
        "over": highest if highest > top else None,
    }


def _series(metrics: Sequence[Mapping[str, Any]], event: str) -> dict[str, Any]:
    losses = {
        line["step"]: float(line["loss"])
        for line in metrics
        if line.get("event") == event and type(line.get("loss")) in (int, float) and line["step"] >= 0
    }
    steps = np.array(sorted(losses), dtype=np.int64)
    values = np.array([losses[step] for step in steps.tolist()])
    broken = first_broken(steps, values)
    if broken is not None:
        steps, values = steps[steps < broken], values[steps < broken]
    kept = extremes(steps, values)
    return {
        "steps": steps[kept].tolist(),
        "values": [float(f"{value:.5g}") for value in values[kept]],
        "broken": broken,
    }


def extremes(steps: NDArray[np.int64], values: Numbers) -> NDArray[np.int64]:
    """Places of the points to draw on a logarithmic axis: of each of `BUCKETS` parts of it the lowest and the highest.

    The first and the last point are always among them.
    """
    if steps.size <= 2 * BUCKETS:
        return np.arange(steps.size)
    along = np.log1p(steps)
    parts = np.floor(along / along[-1] * BUCKETS).astype(np.int64)
    starts = np.flatnonzero(np.diff(parts, prepend=-1))
    kept = {0, steps.size - 1}
    for start, end in pairwise([*starts.tolist(), steps.size]):
        kept |= {start + int(values[start:end].argmin()), start + int(values[start:end].argmax())}
    return np.array(sorted(kept))


def time_machine_payload(
    film: Film,
    *,
    source: str,
    probe: int,
    places: Mask | None,
    curves: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything the picture needs to know of a film, but what is chosen and the words.

    Args:
        film: What to show.
        source: Name of the training, so that the picture knows when it shows another one.
        probe: Number of the probe, for the same reason.
        places: Where the right answers stand (see `right_places`), for cross-attention of a toy task.
        curves: What `loss_curves` returned, or None if there are no metrics.

    Returns:
        A dictionary of JSON values, except ``weights``: bytes, 16 of the payload's digest and then the weights of all
        steps as unsigned 16-bit fixed point, (N, L, H, Q, K) in C order. ``hash`` is that digest in hexadecimal.
        ``entropy`` and ``share`` are lists (N, L, H), with None where a weight was not a number.
    """
    _, layers, heads, queries, keys = film.weights.shape
    described = {
        "source": source,
        "map": film.key,
        "probe": probe,
        "steps": list(film.steps),
        "recorded": film.recorded,
        "layers": layers,
        "heads": heads,
        "queries": queries,
        "keys": keys,
        "mask": base64.b64encode(np.packbits(film.mask, bitorder="little").tobytes()).decode("ascii"),
        "query_tokens": list(film.query_tokens),
        "key_tokens": list(film.key_tokens),
        "predicted_tokens": None if film.predicted_tokens is None else list(film.predicted_tokens),
        "whole": film.whole.tolist(),
        "entropy": _listed(mean_entropy(film.weights, film.mask)),
        "even_entropy": None if math.isnan(even := even_entropy(film.mask)) else even,
        "share": None if places is None else _listed(share_on(film.weights, places)),
        "even_share": None if places is None else _even_share(places, film.mask),
    }
    body = encode_weights(np.nan_to_num(film.weights, nan=0.0, posinf=0.0, neginf=0.0))
    digest = hashlib.blake2b(json.dumps(described).encode() + body, digest_size=16).digest()
    return {
        **described,
        "curves": None if curves is None else dict(curves),
        "hash": digest.hex(),
        "weights": digest + body,
    }


def _listed(numbers: Numbers) -> list[Any]:
    listed = (np.round(numbers, 5) + 0.0).astype(object)  # no -0.0
    listed[~np.isfinite(numbers)] = None
    return listed.tolist()


def _even_share(places: Mask, mask: Mask) -> float:
    rows = places.any(axis=1)
    return float((places[rows].sum(axis=1) / mask[rows].sum(axis=1)).mean())


def moment_from_json(value: Any, payload: Mapping[str, Any], default: Moment) -> Moment:
    """What the picture reported, or as much of `default` as its report does not fit.

    The browser's word is checked: it may be stale, of another training, or not ours at all. A step is kept from one kind
    of attention to another, a head only within its own.
    """
    if not isinstance(value, Mapping) or value.get("source") != payload["source"]:
        return default
    moment, step = default, value.get("step")
    if type(step) is int and step in payload["steps"]:
        moment = replace(moment, step=step)
    layer, head = value.get("layer"), value.get("head")
    if value.get("map") != payload["map"] or type(layer) is not int or type(head) is not int:
        return moment
    if 0 <= layer < payload["layers"] and 0 <= head < payload["heads"]:
        moment = replace(moment, layer=layer, head=head)
    return moment
