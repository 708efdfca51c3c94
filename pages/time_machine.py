"""Time machine: how the attention of a model grew while it trained, from almost even to structured.

A training records the attention of its probe sentences at logarithmically spaced steps. A person plays them beside the
loss, for any head of the shipped checkpoints or of a run of their own, also while it is at work.
"""

from pathlib import Path
from typing import Any

import streamlit as st

from lab.figures.time_machine import Film, Moment, moment_from_json, nearest_step, opening_head
from lab.runs.problems import RunProblem
from lab.runs.store import Run
from lab.ui.language import _
from lab.ui.live import keep_pace, live
from lab.ui.runs import problem_text
from lab.ui.shell import page_start
from lab.ui.state import menu, segments
from lab.ui.time_machine_view import (
    film,
    payload_of,
    probe_titles,
    recipe_of,
    recorded_attention,
    run_of,
    time_machine_view,
    training_folder,
    training_titles,
)

PICTURE = "time_machine"
KEPT = "time_machine_kept"
PUBLISHED = "time_machine_in_address"
HEIGHT = 690
OPENING = "reverse"
EVERY_SECONDS = 2


def page() -> None:
    """Choose a training and a sentence; play."""
    asked = asked_run()
    titles = training_titles(asked)
    opening = OPENING if OPENING in titles else None
    name = None
    if titles:
        name = menu(_("Checkpoint"), titles, key="checkpoint", default=opening, place=st.sidebar)
    st.title(_("Time machine"))
    if name is None:
        st.info(_("There is no checkpoint here yet. Make one with `make checkpoint-reverse`, then reload."))
        return
    # A training at work gains steps; another one is not asked for news.
    live(news, name, busy=is_at_work(name), least=EVERY_SECONDS)


def asked_run() -> Run | None:
    """The run that the address names; if there is no such training, say so."""
    try:
        return run_of(st.query_params.get("checkpoint"))
    except ValueError as problem:
        if isinstance(problem, RunProblem):
            st.warning(problem_text(problem))
        return None


def is_at_work(name: str) -> bool:
    """Whether a training goes on."""
    try:
        run = run_of(name)
    except ValueError:
        return False
    return run is not None and run.unfinished


def news(name: str, every: float | None) -> None:
    """Show what a training recorded, as far as it has come."""
    keep_pace(every, busy=is_at_work(name), least=EVERY_SECONDS)
    try:
        show(name, training_folder(name))
    except ValueError as error:
        st.error(
            _(
                "The attention that this training recorded is damaged and cannot be shown. Choose another one in the "
                "sidebar."
            )
        )
        st.code(str(error), language=None, wrap_lines=True)


def show(name: str, folder: Path) -> None:
    """Show what a training recorded.

    Raises:
        ValueError: If that is damaged.
    """
    snapshots = recorded_attention(folder)
    if snapshots is None:
        st.info(
            _(
                "This training has recorded no attention so far. It does so if its recipe names probe sentences, and saves "
                "it every few seconds while it runs: come back in a moment, or choose another one in the sidebar."
            )
        )
        return
    st.markdown(
        _(
            "Play how the attention of this model took shape while it trained: almost even at first, structured as the loss "
            "falls."
        )
    )
    kinds = {
        "cross": _("Cross-attention"),
        "encoder": _("Encoder self-attention"),
        "decoder": _("Decoder self-attention"),
    }
    with st.container(horizontal=True, vertical_alignment="bottom"):
        sentence_place = st.container(width=360)
        probe = (
            int(menu(_("Sentence"), probe_titles(folder, snapshots), key="probe", place=sentence_place)) - 1
        )
        key = segments(_("Attention"), kinds, key="map")
    shown = film(folder, probe, key)
    payload = payload_of(name, folder, shown, probe)
    moment = time_machine_view(payload, moment_now(name, shown, payload), key=PICTURE, height=HEIGHT)
    keep(name, shown, moment)
    if len(shown.steps) < shown.recorded:
        st.caption(
            _("Of {recorded} recorded steps {shown} are shown here, evenly chosen.").format(
                recorded=shown.recorded, shown=len(shown.steps)
            )
        )
    what_is_shown(folder)


def moment_now(name: str, shown: Film, payload: dict[str, Any]) -> Moment:
    """The head and the step to show.

    What the address newly asks for comes first, then where the reader went in the picture, then where this training was
    left; at first it is the sharpest head at the last step.
    """
    kept = st.session_state.setdefault(KEPT, {})
    layer, head = kept.get((name, shown.key), opening_head(shown))
    layers, heads = shown.weights.shape[1:3]
    if layer >= layers or head >= heads:
        layer, head = opening_head(shown)
    moment = Moment(layer=layer, head=head, step=nearest_step(shown.steps, kept.get(name, shown.steps[-1])))
    asked = {part: st.query_params.get(part) for part in ("layer", "head", "step")}
    if any(asked.values()) and asked != st.session_state.get(PUBLISHED):
        return Moment(
            layer=number_from(asked["layer"], layers, moment.layer),
            head=number_from(asked["head"], heads, moment.head),
            step=step_from(asked["step"], shown.steps, moment.step),
        )
    return moment_from_json(st.session_state.get(PICTURE, {}).get("moment"), payload, moment)


def number_from(text: str | None, count: int, default: int) -> int:
    """An index below `count` from a number that counts from 1, or `default` if it is none."""
    return {str(index + 1): index for index in range(count)}.get(text or "", default)


def step_from(text: str | None, steps: tuple[int, ...], default: int) -> int:
    """The recorded step that is nearest to the one asked for, or `default` if that is no number."""
    return nearest_step(steps, int(text)) if text and text.isdecimal() and len(text) < 16 else default


def keep(name: str, shown: Film, moment: Moment) -> None:
    """Remember the moment for when the reader comes back to this training, and put it into the address."""
    kept = st.session_state[KEPT]
    kept[name, shown.key] = (moment.layer, moment.head)
    kept[name] = moment.step
    address = {"layer": str(moment.layer + 1), "head": str(moment.head + 1), "step": str(moment.step)}
    st.session_state[PUBLISHED] = address
    st.query_params.update(address)


def what_is_shown(folder: Path) -> None:
    """Say exactly what the numbers are."""
    training = recipe_of(folder).get("training", {})
    with st.expander(_("What exactly is shown")):
        st.markdown(
            _(
                "The weights are those the model itself computed at that step while it read the sentence and its target, "
                "rounded to 16-bit floats; nothing between two recorded steps is made up. The entropy of a row is "
                "$-\\sum_k w_k\\log_2 w_k$: 0 bits if it looks at one key alone, $\\log_2 n$ if it looks at $n$ keys evenly; "
                "rows that have only one key are left out of the mean. Where the task says which token is right, rows that copy "
                "nothing, such as the end, are left out too. The axis of steps is that of "
                "$\\log(1+\\text{step})$, so that step 0 has a place."
            )
        )
        st.markdown(
            _(
                "*train* is the mean loss per token of single batches, before each step; *dev* is measured on sentences "
                "that the training never sees."
            )
        )
        if training.get("label_smoothing"):
            st.markdown(
                _(
                    "The train loss has label smoothing of {smoothing} in it and the dev loss has none, so they cannot be "
                    "compared directly."
                ).format(smoothing=training["label_smoothing"])
            )
        if training.get("average_decay"):
            st.markdown(
                _(
                    "Attention and dev loss are those of the averaged weights, which are the ones that are kept; they lag "
                    "a little behind the weights that are trained."
                )
            )


page_start()
page()
