"""Pictures of what the experiments on normalisation measured, from their events."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from lab.experiments.events import Event, Label
from lab.experiments.points import Line, lines_of
from lab.figures.curves import Curve, Words, line_chart, run_curves
from lab.figures.multiples import GridWords, Panel, small_multiples
from lab.ui.language import _
from lab.ui.norm_words import COLOURS, coloured, is_dashed, layers_unit, variant_title
from lab.ui.run_view import metric_title, show_curves

HEIGHT = 270
NORMS = ("post", "pre", "deepnorm")
# What the experiment on depth calls the variants.
VARIANTS = {
    "post": "post",
    "pre": "pre",
    "deepnorm": "deepnorm",
    "no_norm": "none",
    "no_residual": "pre-alone",
}
ABOVE_GUESSING = 1.3


def steps_of(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """A line whose x are whole numbers."""
    return line.x.astype(np.int64), line.y


def variant_curves(variant: str, lines: Iterable[Line]) -> list[Curve]:
    """The curves of a variant: the mean over its seeds, and a band from the lowest to the highest."""
    runs = [steps_of(line) for line in lines]
    return (
        run_curves(variant_title(variant), COLOURS[variant], runs, dashed=is_dashed(variant)) if runs else []
    )


def norm_curves(events: Sequence[Event], quantity: str, **where: Label) -> list[Curve]:
    """The curves of each norm."""
    return [
        curve
        for norm in NORMS
        for curve in variant_curves(norm, lines_of(events, quantity, norm=norm, **where))
    ]


def law_curves(events: Sequence[Event], quantity: str) -> list[Curve]:
    """The curves of the theory, thin and dashed in the colours of their norms."""
    return [
        Curve(
            steps=steps_of(line)[0], values=line.y, colour=COLOURS[str(line.labels["norm"])], faint=True, dashed=True
        )
        for line in lines_of(events, quantity)
    ]  # fmt: skip


def gradient_pictures(events: Sequence[Event], _numbers: Mapping[str, Any]) -> None:
    """norm-gradients-at-init: the last gradient against the depth, and every layer of the deepest stack."""
    grid = st.container(key="norm_charts_gradients")
    layers = [int(line.labels["layers"]) for line in lines_of(events, "stream", setting="theory")]
    deepest = max(layers, default=0)
    pictures = (
        (
            _("Last feed-forward gradient, one stack"),
            norm_curves(events, "gradient", setting="theory") + law_curves(events, "gradient_law"),
            "theory", True,
        ),
        (_("The same, encoder and decoder"), norm_curves(events, "gradient", setting="full"), "full", True),
        (
            _("Every layer's gradient, {layers} layers").format(layers=deepest),
            norm_curves(events, "layer_gradient", setting="theory", layers=deepest), "layers", False,
        ),
        (
            _("Residual stream, {layers} layers").format(layers=deepest),
            norm_curves(events, "stream", setting="theory", layers=deepest) + law_curves(events, "stream_law"),
            "stream", False,
        ),
    )  # fmt: skip
    for title, curves, name, over_depth in pictures:
        words = Words(
            title=_("{title}, log scale").format(title=title),
            step=_("layers L, log scale") if over_depth else _("layer"),
            value=_("size of the stream") if name == "stream" else _("gradient norm"),
            line=_("line"),
            broken=_("no number at {step}"),
        )
        chart = line_chart(
            curves, words, last_step=last_of(curves), height=HEIGHT, log_steps=over_depth, log_values=True
        )
        grid.vega_lite_chart(chart.vega(), key=f"gradients_{name}", alt=title)
    st.caption(
        _(
            "Lines: mean over the seeds; bands: lowest to highest seed. Dashed: the law of the theory, put where it fits "
            "best; in the last picture its bounds for pre-norm."
        )
    )


def last_of(curves: Iterable[Curve]) -> int:
    """Where an axis must end to hold all curves."""
    return max((int(curve.steps[-1]) for curve in curves if curve.steps.size), default=2)


def warm_up_pictures(events: Sequence[Event], numbers: Mapping[str, Any]) -> None:
    """norm-warm-up: the training loss over the steps, a panel for each learning rate and warm-up."""
    lines = lines_of(events, "train_loss")
    rates = sorted({float(line.labels["learning_rate"]) for line in lines})
    rises = sorted({int(line.labels["warm_up"]) for line in lines})
    norms = [norm for norm in NORMS if any(line.labels["norm"] == norm for line in lines)]
    panels = [
        Panel(
            row=row,
            column=column,
            curves=[
                curve
                for norm in norms
                for curve in variant_curves(
                    norm, lines_of(events, "train_loss", norm=norm, learning_rate=rate, warm_up=rise)
                )
            ],
        )
        for row, rate in enumerate(rates)
        for column, rise in enumerate(rises)
    ]
    words = GridWords(
        title=_("Training loss (nats per token) over the steps"),
        rows=[_("learning rate {rate}").format(rate=f"{rate:g}") for rate in rates],
        columns=[_("warm-up {steps}").format(steps=rise) if rise else _("no warm-up") for rise in rises],
        reference=_("guess"),
    )
    show_panels(panels, words, norms, lines, numbers, key="warm_up_grid")


def show_panels(
    panels: Sequence[Panel],
    words: GridWords,
    variants: Sequence[str],
    lines: Sequence[Line],
    numbers: Mapping[str, Any],
    *,
    key: str,
) -> None:
    """Draw small multiples, with what their colours mean above."""
    guessing = numbers.get("guessing_loss")
    highest = highest_loss(lines, guessing)
    last = max((int(line.x[-1]) for line in lines), default=1)
    st.html(" · ".join(coloured(variant) for variant in variants))
    chart = small_multiples(panels, words, last_step=last, highest=highest, reference=guessing)
    st.vega_lite_chart(chart.vega(), key=key, alt=words.title)
    notes = [
        _("All panels have one scale; the number at a line's end is its last."),
        _("Lines: mean over the seeds; bands: lowest to highest seed."),
    ]
    if guessing is not None:
        notes.append(_("Dashed: the loss of guessing by how often each token occurs."))
    st.caption(" ".join(notes))


def highest_loss(lines: Iterable[Line], guessing: float | None) -> float:
    """Where the axis of losses ends, so that what learns is seen well: a bit above guessing, if that is known."""
    if guessing is not None:
        return float(f"{ABOVE_GUESSING * guessing:.1g}")
    tops = [float(line.y[np.isfinite(line.y)].max()) for line in lines if np.isfinite(line.y).any()]
    return float(f"{np.median(tops):.2g}") if tops else 1.0


def depth_pictures(events: Sequence[Event], numbers: Mapping[str, Any]) -> None:
    """norm-depth: the training loss at each depth; gradients at the first step and movement at the last, layer by layer."""
    lines = lines_of(events, "train_loss")
    depths = sorted({int(line.labels["layers"]) for line in lines})
    found = {str(line.labels["variant"]) for line in lines}
    names = [name for name in VARIANTS if name in found]

    def curves(quantity: str, **where: Label) -> list[Curve]:
        return [
            curve
            for name in names
            for curve in variant_curves(VARIANTS[name], lines_of(events, quantity, variant=name, **where))
        ]

    panels = [
        Panel(row=0, column=column, curves=curves("train_loss", layers=layers))
        for column, layers in enumerate(depths)
    ]
    words = GridWords(
        title=_("Training loss (nats per token) over the steps"),
        rows=[""],
        columns=[_("{count} layers").format(count=layers) for layers in depths],
        reference=_("guess"),
    )
    show_panels(panels, words, [VARIANTS[name] for name in names], lines, numbers, key="depth_grid")
    grid = st.container(key="norm_charts_depth")
    last = max((int(line.labels["step"]) for line in lines_of(events, "layer_update")), default=0)
    deepest = max(depths, default=0)
    for quantity, step, title, unit in (
        ("layer_gradient", 1, _("Gradient of every layer, first step"), layers_unit("layer_gradients")),
        ("layer_update", last, _("Movement by every layer, last step"), layers_unit("layer_updates")),
    ):
        drawn = [of_layers(curve) for curve in curves(quantity, layers=deepest, step=step)]
        told = Words(
            title=_("{title}, log scale").format(title=title),
            step=_("layer of {count}, encoder first").format(count=deepest),
            value=unit,
            line=_("line"),
            broken=_("no number in layer {step}"),
        )
        chart = line_chart(drawn, told, last_step=max(deepest, 2), height=HEIGHT, log_values=True)
        grid.vega_lite_chart(chart.vega(), key=f"depth_{quantity}", alt=title)
    st.caption(
        _("Where a line has a gap, the number is 0: on its way through the layers the gradient has vanished.")
    )


def of_layers(curve: Curve) -> Curve:
    """The curve with its layers counted from 1, and with gaps where it is 0, which has no place on a logarithmic axis."""
    gap = curve.values == 0

    def without(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.where(gap, np.nan, values)

    return replace(
        curve,
        steps=curve.steps + 1,
        values=np.where(gap, np.nan, curve.values),
        low=without(curve.low),
        high=without(curve.high),
        broken=None if curve.broken is None else curve.broken + 1,
    )


def quality_pictures(events: Sequence[Event], _numbers: Mapping[str, Any]) -> None:
    """norm-final-quality: BLEU, loss and accuracy on held-out pairs over the steps."""
    grid = st.container(key="norm_maps_quality")
    last = last_of(norm_curves(events, "train_loss"))
    for metric in ("dev_loss", "bleu", "accuracy"):
        curves = norm_curves(events, metric)
        title = metric_title(metric) if metric != "bleu" else _("BLEU, greedy")
        if metric == "bleu":
            words = Words(
                title=title, step=_("step"), value=title, line=_("line"), broken=_("diverged at step {step}")
            )
            chart = line_chart(curves, words, last_step=last, height=HEIGHT)
            grid.vega_lite_chart(chart.vega(), key="quality_bleu", alt=title)
        else:
            show_curves(
                curves, title, metric=metric, last_step=last, height=HEIGHT, log_steps=False, place=grid,
                key=f"quality_{metric}",
            )  # fmt: skip
