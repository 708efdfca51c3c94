"""The time machine on a page: which trainings recorded attention, their films, and ``assets/components/time_machine``."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import streamlit as st

from lab.figures.heads import MapKey
from lab.figures.scripts import picture_script, picture_style
from lab.figures.time_machine import (
    Film,
    Moment,
    film_of,
    loss_curves,
    moment_from_json,
    right_places,
    time_machine_payload,
)
from lab.runs.problems import RunProblem
from lab.runs.store import UNFINISHED, Run, State
from lab.ui.checkpoints import RUN_PREFIX, checkpoint_folder, checkpoint_names, checkpoint_title
from lab.ui.language import _, language
from lab.ui.runs import laboratory, state_name
from transformer.checkpoint import METRICS, PREVIOUS, SNAPSHOTS, Snapshots, read_config
from transformer.training_folder import read_metrics

_SCRIPT = picture_script("time_machine")
# Weights and the rest travel apart, as in `lab.ui.heads_view`.
_weights = st.components.v2.component("headlight_time_machine_weights", js=_SCRIPT)
_picture = st.components.v2.component(
    "headlight_time_machine_picture",
    html='<div class="hl tm"></div>',
    css=picture_style("time_machine"),
    js=_SCRIPT,
)
# Trainings that are no model to choose on other pages, or not yet, but whose past can be looked at.
NO_MODEL: tuple[State, ...] = (*UNFINISHED, "failed", "lost")
FILES = tuple(f"{before}{SNAPSHOTS}.{kind}" for before in ("", PREVIOUS) for kind in ("json", "safetensors"))


def training_titles(asked: Run | None) -> dict[str, str]:
    """What the menu calls each training, by name: all checkpoints, and runs that are at work or have failed.

    Args:
        asked: A run to list in any case.
    """
    names = checkpoint_names()
    titles = {name: checkpoint_title(name) for name in names if not name.startswith(RUN_PREFIX)}
    for run in [*runs_without_model(), *([asked] if asked else [])]:
        titles[f"{RUN_PREFIX}{run.id}"] = f"{run.name} · {run.id} · {state_name(run)}"
    return {**titles, **{name: checkpoint_title(name) for name in names if name.startswith(RUN_PREFIX)}}


def runs_without_model() -> list[Run]:
    """Trainings that have recorded something and are at work or have failed, the newest first."""
    try:
        lab = laboratory()
        found = lab.store.runs(states=NO_MODEL)
    except ValueError:
        return []  # The pages of the runs say what is wrong with them.
    return [run for run in found if run.kind == "training" and recorded_files(lab.folder(run.id))]


def run_of(name: str | None) -> Run | None:
    """The run that a name such as ``run-k3x9`` means; None for a shipped checkpoint.

    Raises:
        RunProblem: If there is no such training.
    """
    if name is None or not name.startswith(RUN_PREFIX):
        return None
    run_id = name.removeprefix(RUN_PREFIX)
    run = laboratory().get(run_id)
    if run.kind != "training":
        raise RunProblem("unknown_run", f"Run {run_id!r} is no training.", run=run_id)
    return run


def training_folder(name: str) -> Path:
    """Where a training lies.

    Raises:
        ValueError: If there is none of this name.
    """
    if name.startswith(RUN_PREFIX):
        return laboratory().folder(name.removeprefix(RUN_PREFIX))
    return checkpoint_folder(name)


def recorded_files(folder: Path) -> tuple[tuple[str, int], ...]:
    """The files of recorded attention that are in a folder, with the time each was changed; empty if there are none."""
    found = []
    for name in FILES:
        try:
            found.append((name, (folder / name).stat().st_mtime_ns))
        except OSError:
            continue
    return tuple(found)


def recorded_attention(folder: Path) -> Snapshots | None:
    """The recorded attention of a training, read once for everybody; None if nothing was recorded.

    Raises:
        ValueError: If it is damaged.
    """
    files = recorded_files(folder)
    if not files:
        return None
    snapshots = _snapshots(str(folder), files)
    return snapshots if snapshots.steps and snapshots.probes else None


@st.cache_resource(max_entries=8, show_spinner=False)
def _snapshots(folder: str, files: tuple[tuple[str, int], ...]) -> Snapshots:
    return Snapshots.load(Path(folder))


def recipe_of(folder: Path) -> dict[str, Any]:
    """The recipe of a training as plain values; empty if it cannot be read."""
    try:
        recipe = read_config(folder)["recipe"]
    except ValueError:
        return {}
    return recipe if isinstance(recipe, dict) else {}


def probe_titles(folder: Path, snapshots: Snapshots) -> dict[str, str]:
    """What the menu calls each probe, by its number from 1: its source as it was written, else its tokens."""
    written = recipe_of(folder).get("probes")
    sentences = [probe.get("source") for probe in written] if isinstance(written, list | tuple) else []
    if len(sentences) != len(snapshots.probes) or not all(isinstance(each, str) for each in sentences):
        sentences = [" ".join(map(str, probe.source[:-1])) for probe in snapshots.probes]
    return {str(number): sentence for number, sentence in enumerate(sentences, start=1)}


@st.cache_resource(max_entries=32, show_spinner=False)
def _film(folder: str, files: tuple[tuple[str, int], ...], probe: int, key: MapKey) -> Film:
    return film_of(_snapshots(folder, files), probe, key)


def film(folder: Path, probe: int, key: MapKey) -> Film:
    """The film of a probe and a kind of attention, cut once for everybody.

    Raises:
        ValueError: If it is damaged, or was not recorded.
    """
    return _film(str(folder), recorded_files(folder), probe, key)


def losses(folder: Path) -> dict[str, Any] | None:
    """The curves of the losses; None if there are no metrics."""
    try:
        status = (folder / METRICS).stat()
        curves = _losses(str(folder), status.st_mtime_ns, status.st_size)
    except (OSError, ValueError):
        return None
    return curves if curves["train"]["steps"] or curves["dev"]["steps"] or curves["last"] else None


@st.cache_resource(max_entries=32, show_spinner=False)
def _losses(folder: str, modified: int, size: int) -> dict[str, Any]:
    return loss_curves(read_metrics(Path(folder)))


def payload_of(name: str, folder: Path, shown: Film, probe: int) -> dict[str, Any]:
    """The payload of a film of a training."""
    task = recipe_of(folder).get("data", {}).get("task", "")
    probes = _snapshots(str(folder), recorded_files(folder)).probes
    places = right_places(task, probes[probe]) if shown.key == "cross" else None
    return time_machine_payload(shown, source=name, probe=probe, places=places, curves=losses(folder))


def time_machine_view(payload: Mapping[str, Any], moment: Moment, *, key: str, height: int) -> Moment:
    """Draw the time machine; moving through the steps stays in the browser, where it stops is reported.

    Args:
        payload: What `payload_of` returned.
        moment: What to show, unless the reader has gone on from there.
        key: The widget's key.
        height: Height in CSS pixels to fit into on a wide screen; on a narrow one the parts stack.

    Returns:
        The moment now.
    """
    described = {name: value for name, value in payload.items() if name != "weights"}
    with st.container(gap=None):
        result = _picture(
            key=key,
            data={**described, "moment": asdict(moment), "strings": time_machine_strings(), "height": height},
            default={"moment": None},
            on_moment_change=_no_action,
        )
        _weights(key=f"{key}_weights", data=payload["weights"])
    return moment_from_json(result.moment, payload, moment)


def _no_action() -> None:
    """Streamlit only reports states that have a callback."""


def time_machine_strings() -> dict[str, str]:
    """Every visible string of the picture, in the session's language."""
    return {
        "language": language(),
        "label": _("Attention at the recorded steps of a training"),
        "title_encoder": _("Encoder self-attention"),
        "title_decoder": _("Decoder self-attention"),
        "title_cross": _("Cross-attention"),
        "place_head": _("layer {layer} · head {head}"),
        "weight": _("weight"),
        "every_step": _("(the same at every step)"),
        "masked": _("masked"),
        "rows": _("rows: queries, who looks"),
        "columns": _("columns: keys, looked at"),
        "query_column": _("query"),
        "reads": _("reads"),
        "predicts": _("predicts"),
        "reads_predicts": _("reads {read} → predicts {predicted}"),
        "pinned": _("pinned"),
        "unpinned": _("unpinned"),
        "table": _("Table"),
        "table_label": _("Show the selected head as a table"),
        "play": _("Play"),
        "pause": _("Pause"),
        "keys": _("Space plays and pauses, ← → go one step, Home and End to the ends"),
        "slider": _("Recorded step"),
        "step": _("step {step}"),
        "only_one": _("Only one step is recorded."),
        "large_label": _("{title}, {place}, {step}. Shift and arrows: cells. Enter pins, Escape unpins."),
        "hint": _("Space plays, ← → step. Point at a cell to read it, click to follow it."),
        "not_a_number": _("not a number: the training had diverged"),
        "bits": _("{bits} bits"),
        "entropy": _("mean row entropy (even: {even})"),
        "no_choice": _("No row has two keys to choose from."),
        "share": _("of the weight is on the right token (even: {even})"),
        "heads": _("All heads at this step; click one to enlarge it"),
        "heads_label": _("All heads. Shown large: {place}. Arrow keys choose another."),
        "loss": _("loss (nats per token)"),
        "train": _("train"),
        "dev": _("dev"),
        "train_at": _("train {loss} (step {step})"),
        "dev_at": _("dev {loss} (step {step})"),
        "train_broken": _("From step {step} on the training loss is not a number."),
        "dev_broken": _("From step {step} on the dev loss is not a number."),
        "over": _("The loss rose to {loss}, beyond the picture."),
        "no_loss": _("no loss was written down"),
        "entropy_axis": _("entropy of this head (bits)"),
        "even": _("even"),
        "step_axis": _("step, log scale"),
        "curve_label": _(
            "Loss and entropy against the step. {now}. A click goes to the nearest recorded step."
        ),
    }
