"""Norms side by side: the trainings of a comparison on the same axes, and what each layer did in them."""

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import streamlit as st

from lab.figures.curves import Curve, Words, block_size, line_chart, run_curves
from lab.figures.norm import LayerWords, colour_range, layer_map
from lab.runs.comparison import LAYER_SERIES, VARIANTS, Trial
from lab.ui.language import _
from lab.ui.live import drawn_once
from lab.ui.norm_words import (
    COLOURS,
    coloured,
    is_dashed,
    layers_note,
    layers_title,
    layers_unit,
    variant_title,
)
from lab.ui.run_view import MEANS, NOISY, metric_title, show_curves
from lab.ui.state import segments

STYLE = Path(__file__).resolve().parents[2] / "assets" / "css" / "norm.css"
SHOWN = ("dev_loss", "accuracy", "train_loss", "grad_norm")
HEIGHT, MAP_HEIGHT = 230, 310


def dress_norm() -> None:
    """The style of this page; once a run of the script."""
    st.html(f"<style>{STYLE.read_text(encoding='utf-8')}</style>")


def by_variant(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The trainings of each variant, in the order of `VARIANTS`."""
    return {
        variant: found
        for variant in VARIANTS
        if (found := [trial for trial in trials if trial.variant == variant])
    }


def label(variant: str, count: int) -> str:
    """What the line of a variant is called."""
    return f"{variant_title(variant)} ×{count}" if count > 1 else variant_title(variant)


def show_comparison(trials: Sequence[Trial], *, key: str, version: Hashable) -> None:
    """All pictures of a comparison.

    Args:
        trials: Its trainings.
        key: Tells this comparison's widgets from others on the page.
        version: Which comparison it is, and differs once there are other numbers in it.
    """
    variants = by_variant(trials)
    last_step = max(trial.steps for trial in trials)
    drawn_once(lambda: draw_curves(variants, last_step, key=key), "norms", version, key)
    show_layers(variants, last_step, key=key, version=version)


def draw_curves(variants: dict[str, list[Trial]], last_step: int, *, key: str) -> None:
    """What came out, and the measurements over the steps."""
    if told := result_sentence(variants):
        st.html(told)
    block = block_size(last_step, MEANS)
    grid = st.container(key=f"norm_charts_{key}")
    for metric in SHOWN:
        lines: list[Curve] = []
        for variant, members in variants.items():
            found = [trial.series[metric] for trial in members if metric in trial.series]
            if found:
                lines += run_curves(
                    label(variant, len(members)), COLOURS[variant],
                    [(series.steps, series.values) for series in found],
                    block=block if metric in NOISY else 1, dashed=is_dashed(variant),
                )  # fmt: skip
        show_curves(
            lines, metric_title(metric), metric=metric, last_step=last_step, height=HEIGHT, log_steps=False,
            place=grid, key=f"{key}_{metric}",
        )  # fmt: skip
    notes = []
    if any(len(members) > 1 for members in variants.values()):
        notes.append(
            _(
                "×3 and the like: runs that differ in their seed alone. Line: their mean; band: lowest to highest seed."
            )
        )
    if block > 1:
        notes.append(
            _("What is measured at every step is drawn as means of {block} steps.").format(block=f"{block:,}")
        )
    if notes:
        st.caption(" ".join(notes))


def result_sentence(variants: dict[str, list[Trial]]) -> str:
    """What came out so far, in a sentence, and each training that diverged, as HTML."""
    parts = []
    for variant, members in variants.items():
        ends = [trial.series["accuracy"].values[-1] for trial in members if "accuracy" in trial.series]
        if ends:
            shown = f"{100 * float(np.mean(ends)):.0f} %"
            parts.append(f"{coloured(variant)} {shown}")
    sentences = []
    if parts:
        steps = min((trial.step for trial in variants_of(variants)), default=0)
        last = max(trial.steps for trial in variants_of(variants))
        if steps < last:
            sentences.append(_("So far, tokens right on held-out examples:"))
        else:
            sentences.append(
                _("After {steps} steps, tokens right on held-out examples:").format(steps=f"{last:,}")
            )
        sentences.append(" · ".join(parts))
    for variant, members in variants.items():
        broken = [trial for trial in members if trial.diverged_at is not None]
        if broken:
            where = ", ".join(
                _("seed {seed} at step {step}").format(seed=trial.seed, step=f"{trial.diverged_at:,}")
                for trial in broken
            )
            sentences.append(
                "<br>"
                + _("{name} diverged ({where}): the loss was no number any more.").format(
                    name=coloured(variant), where=where
                )
            )
    return f"<p style='margin:0'>{' '.join(sentences)}</p>" if sentences else ""


def variants_of(variants: dict[str, list[Trial]]) -> list[Trial]:
    """All trainings."""
    return [trial for members in variants.values() for trial in members]


def show_layers(variants: dict[str, list[Trial]], last_step: int, *, key: str, version: Hashable) -> None:
    """A picture of all layers over the steps for each variant, and the layers of the last measurement as lines."""
    measured = [name for name in LAYER_SERIES if any(name in trial.series for trial in variants_of(variants))]
    if not measured:
        return
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    measure = segments(
        _("Every layer"), {name: layers_title(name) for name in LAYER_SERIES}, key=f"{key}_layers",
        place=row.container(width="content"),
    )  # fmt: skip
    seeds = sorted({trial.seed for trial in variants_of(variants)})
    seed = seeds[0]
    if len(seeds) > 1:
        names = {str(each): str(each) for each in seeds}
        seed = int(segments(_("Seed"), names, key=f"{key}_seed", place=row.container(width="content")))
    drawn_once(
        lambda: draw_layers(variants, measure, seed, last_step, key=key),
        "norm layers", version, key, measure, seed,
    )  # fmt: skip


def draw_layers(
    variants: dict[str, list[Trial]], measure: str, seed: int, last_step: int, *, key: str
) -> None:
    """One measurement of every layer: over the steps with one seed, and at the last step."""
    chosen = {
        variant: trial
        for variant, members in variants.items()
        for trial in members
        if trial.seed == seed and measure in trial.series and trial.layers
    }
    st.caption(layers_note(measure))
    if not chosen:
        return
    colours = colour_range([trial.series[measure].values for trial in chosen.values()])
    grid = st.container(key=f"norm_maps_{key}")
    for variant, trial in chosen.items():
        words = LayerWords(
            title=variant_title(variant),
            step=_("step"),
            layer=_("layer"),
            value=_("{value}, log scale").format(value=layers_unit(measure)),
            encoder=_("encoder {layer}"),
            decoder=_("decoder {layer}"),
        )
        series = trial.series[measure]
        chart = layer_map(
            series.steps, series.values, trial.layers, words, colours=colours, last_step=last_step,
            height=MAP_HEIGHT,
        )  # fmt: skip
        grid.vega_lite_chart(
            chart.vega(),
            key=f"{key}_map_{variant}",
            alt=_("{value} of every layer over the steps: {name}").format(
                value=layers_unit(measure), name=variant_title(variant)
            ),
        )
    draw_profile(variants, measure, key=key)


def draw_profile(variants: dict[str, list[Trial]], measure: str, *, key: str) -> None:
    """The numbers of the last measurement, layer by layer."""
    lines: list[Curve] = []
    depth = 2
    for variant, members in variants.items():
        ends = [
            (np.arange(1, len(trial.layers) + 1), trial.series[measure].values[-1])
            for trial in members
            if measure in trial.series
        ]
        if ends and len({len(layers) for layers, _values in ends}) == 1:
            depth = max(depth, len(ends[0][0]))
            lines += run_curves(label(variant, len(ends)), COLOURS[variant], ends, dashed=is_dashed(variant))
    words = Words(
        title=_("{value}, log scale").format(
            value=_("At the last measurement: {value}").format(value=layers_unit(measure))
        ),
        step=_("layer, encoder first"),
        value=layers_unit(measure),
        line=_("line"),
        broken=_("no number in layer {step}"),
    )
    chart = line_chart(lines, words, last_step=depth, height=HEIGHT, log_values=True)
    st.vega_lite_chart(
        chart.vega(),
        key=f"{key}_profile",
        alt=_("At the last measurement: {value}").format(value=layers_unit(measure)),
    )
