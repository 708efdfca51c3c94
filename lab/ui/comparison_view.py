"""Runs laid over one another: names and colours of their groups, a picture for each measurement, settings that differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import streamlit as st

from lab.figures.comparison import differences, seed_groups, settings, shortened
from lab.figures.curves import RUNS, Curve, block_size, display_width, run_colours, run_curves
from lab.runs.laboratory import Laboratory
from lab.runs.store import Run
from lab.ui.checkpoints import run_title
from lab.ui.language import _
from lab.ui.live import drawn_once, measured_version
from lab.ui.run_view import MEANS, NOISY, SettingWords, axis_end, metric_title, show_curves
from lab.ui.runs import shown_series

# More lines than this no one can tell apart.
MOST_LINES = 16
LABEL_WIDTH = 20
HEIGHT = 320


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        label: What their line is called.
        colour: Its colour.
        dashed: Whether it is dashed, where there are more lines than colours.
        runs: The runs, at least one.
    """

    label: str
    colour: str
    dashed: bool
    runs: tuple[Run, ...]


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """Runs in groups that differ in their seed alone, each with a name of its own and a colour."""
    by_id = {run.id: run for run in runs}
    members = [
        tuple(by_id[run_id] for run_id in group) for group in seed_groups({run.id: run.spec for run in runs})
    ]
    labels = group_labels(members)
    norms = {str(place): settings(group[0].spec)["model.norm"] for place, group in enumerate(members)}
    colours = run_colours(norms)
    return [
        Group(label=label, colour=colours[str(place)], dashed=place >= len(RUNS), runs=group)
        for place, (label, group) in enumerate(zip(labels, members, strict=True))
    ]


def group_labels(members: Sequence[tuple[Run, ...]]) -> list[str]:
    """Names of groups: of their newest run, and where several are called the same, what tells them apart."""
    titles = [run_title(group[0]) for group in members]
    words, labels = SettingWords(), []
    for title, group in zip(titles, members, strict=True):
        same = [other for other, named in zip(members, titles, strict=True) if named == title]
        label = shortened(title, LABEL_WIDTH)
        if len(same) > 1:
            table = differences([other[0].spec for other in same])
            place = same.index(group)
            telling = [words.text(key, values[place]) for key, values in table.items()][:2]
            label = " ".join([shortened(title, LABEL_WIDTH // 2), *telling])
        labels.append(f"{label} ×{len(group)}" if len(group) > 1 else label)
    return [
        f"{label} {group[0].id}" if labels.count(label) > 1 else label
        for label, group in zip(labels, members, strict=True)
    ]


def overlay(
    lab: Laboratory, groups: Sequence[Group], metrics: Sequence[str], *, log_steps: bool, log_values: bool
) -> None:
    """A picture for each measurement, with a line for each group of runs."""
    last_step = max((axis_end(run) for group in groups for run in group.runs), default=1)
    shown = tuple((group.label, group.colour, tuple(run.id for run in group.runs)) for group in groups)
    drawn_once(
        lambda: draw_overlay(groups, metrics, last_step, log_steps, log_values),
        "overlay", measured_version(lab), shown, tuple(metrics), last_step, log_steps, log_values,
    )  # fmt: skip


def draw_overlay(
    groups: Sequence[Group], metrics: Sequence[str], last_step: int, log_steps: bool, log_values: bool
) -> None:
    """Draw the pictures."""
    run_ids = [run.id for group in groups for run in group.runs]
    measured = shown_series(run_ids, metrics, most=None)
    block = block_size(last_step, MEANS)
    # Beside long names two pictures in a row would leave little room for the lines.
    longest = max((display_width(group.label) for group in groups), default=0)
    grid = st.container(key="overlay_charts" if longest <= LABEL_WIDTH else "overlay_charts_wide")
    for metric in metrics:
        lines: list[Curve] = []
        for group in groups:
            found = [measured[run.id, metric] for run in group.runs if (run.id, metric) in measured]
            if found:
                lines += run_curves(
                    group.label, group.colour, [(series.steps, series.values) for series in found],
                    block=block if metric in NOISY else 1, dashed=group.dashed,
                )  # fmt: skip
        show_curves(
            lines, metric_title(metric), metric=metric, last_step=last_step, height=HEIGHT,
            log_steps=log_steps, log_values=log_values, place=grid, key=f"overlay_{metric}",
        )  # fmt: skip
    notes = []
    if any(len(group.runs) > 1 for group in groups):
        notes.append(
            _(
                "×3 and the like: runs that differ in their seed alone. Line: their mean; band: lowest to highest seed."
            )
        )
    if block > 1 and set(metrics) & set(NOISY):
        notes.append(
            _("What is measured at every step is drawn as means of {block} steps.").format(block=f"{block:,}")
        )
    if notes:
        st.caption(" ".join(notes))


def differences_table(groups: Sequence[Group]) -> str:
    """The settings that differ, a column for each group, as HTML."""
    words, table = SettingWords(), differences([group.runs[0].spec for group in groups])
    heads = "".join(
        f"<th><span class='line' style='background:{group.colour}'></span>{escape(group.label)}</th>"
        for group in groups
    )
    seeds = "".join(
        f"<td>{escape(', '.join(str(settings(run.spec)['training.seed']) for run in group.runs))}</td>"
        for group in groups
    )
    rows = "".join(
        f"<tr><th>{escape(words.label(key))}</th>"
        + "".join(f"<td>{escape(words.text(key, value))}</td>" for value in values)
        + "</tr>"
        for key, values in table.items()
        if key != "training.seed"
    )
    return (
        f"<div class='differences' tabindex='0'><table><thead><tr><th></th>{heads}</tr></thead>"
        f"<tbody>{rows}<tr><th>{escape(words.label('training.seed'))}</th>{seeds}</tr></tbody></table></div>"
    )
