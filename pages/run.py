"""A training run while it works and after: what it measured, what its model writes, what happened to it.

The page asks for news every second or so while the run has not ended, and not at all afterwards. The curves move in place.
"""

from dataclasses import replace

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.figures.curves import DEV, PLAIN, TRAIN, Curve, block_means, block_size, first_broken
from lab.runs.laboratory import Laboratory
from lab.runs.problems import RunProblem
from lab.runs.store import Run
from lab.ui.checkpoints import run_checkpoint, run_title
from lab.ui.language import _
from lab.ui.live import drawn_once, keep_pace, live, measured_version
from lab.ui.run_view import (
    MEANS,
    METRICS,
    NOISY,
    attempt_change,
    axes,
    axis_end,
    describe,
    download,
    dress_runs,
    duration_text,
    has_model,
    is_mine,
    link,
    log_list,
    means_note,
    metric_title,
    roughly,
    samples_table,
    show_curves,
    show_notices,
    today,
)
from lab.ui.runs import problem_text, shown_series, state_name, usable_laboratory
from lab.ui.shell import page_start
from lab.ui.state import menu

LARGE, SMALL = 300, 220
ICONS = {
    "queued": ":material/hourglass_empty:",
    "starting": ":material/hourglass_top:",
    "running": ":material/play_circle:",
    "succeeded": ":material/check_circle:",
    "failed": ":material/error:",
    "cancelled": ":material/stop_circle:",
    "lost": ":material/sync_problem:",
}


def page() -> None:
    """Which run, where it stands, its curves, its samples and its log."""
    dress_runs()
    lab = usable_laboratory()
    top = st.container(horizontal=True, vertical_alignment="bottom")
    top.title(_("Training run"), width="content")
    if lab is None:
        return
    run = chosen_run(lab, top.container(width=420))
    if run is None:
        return
    # What has ended does not change any more, and is not asked for again.
    live(news, run.id, busy=run.unfinished)


def chosen_run(lab: Laboratory, place: DeltaGenerator) -> Run | None:
    """The run that the address names, by default the newest; where there is none of this name, say so."""
    runs = {run.id: run for run in lab.runs() if run.kind == "training"}
    asked = st.query_params.get("run")
    if asked is not None and asked not in runs:
        try:
            # An experiment has no place in the menu, but it has a log.
            return lab.get(asked)
        except RunProblem as problem:
            st.error(problem_text(problem))
            link("runs", _("All runs"), icon=":material/table_rows:")
            return None
    titles = {run.id: f"{run_title(run)} · {state_name(run)} · {run.id}" for run in runs.values()}
    if not titles:
        st.info(_("There is no run yet."))
        link("train", _("Train a model"), icon=":material/model_training:")
        return None
    chosen = menu(_("Run"), titles, key="run", place=place)
    return runs[chosen]


def news(run_id: str, every: float | None) -> None:
    """All that changes while a run works."""
    lab = usable_laboratory()
    if lab is None:
        return
    try:
        run = lab.get(run_id)
    except RunProblem as problem:
        st.error(problem_text(problem))
        return
    keep_pace(every, busy=run.unfinished)
    show_notices()
    status(lab, run)
    row = st.container(horizontal=True, vertical_alignment="center", gap="small")
    with row:
        actions(lab, run)
    if run.kind == "training":
        curves(lab, run, row)
    words(lab, run)


def status(lab: Laboratory, run: Run) -> None:
    """What it is, how far it is, and what went wrong."""
    facts = [f"{ICONS[run.state]} **{state_name(run)}**"]
    if run.state == "queued":
        facts.append(_("in place {place} of the queue").format(place=lab.place(run)))
    elif run.stop_requested and run.unfinished:
        facts.append(_("stopping: it saves itself first"))
    elif run.state == "lost" and run.unfinished:
        facts.append(_("its worker was lost; another takes over"))
    facts.append(_("step {step} of {steps}").format(step=f"{run.step:,}", steps=f"{run.steps:,}"))
    if run.seconds:
        facts.append(duration_text(run.seconds))
    if run.seconds_left is not None:
        facts.append(_("about {duration} left").format(duration=roughly(run.seconds_left)))
    st.progress(min(1.0, run.step / max(run.steps, 1)), text=" · ".join(facts))
    if run.kind == "training":
        st.caption(describe(run))
    if run.error is not None and not run.unfinished:
        say = st.info if run.error["code"] == "diverged" else st.error
        say(problem_text(run.error))


def actions(lab: Laboratory, run: Run) -> None:
    """Stop, resume, and the ways on."""
    if is_mine(lab, run) and run.unfinished:
        st.button(
            _("Stop"), key="stop", icon=":material/stop_circle:", disabled=run.stop_requested is not None,
            on_click=attempt_change, args=(lab.stop, run.id),
        )  # fmt: skip
    elif is_mine(lab, run) and run.resumable:
        st.button(
            _("Resume"), key="resume", icon=":material/play_arrow:", type="primary",
            on_click=attempt_change, args=(lab.resume, run.id),
        )  # fmt: skip
    if run.kind == "training":
        link("train", _("Clone with changes"), icon=":material/content_copy:", clone=run.id)
        link(
            "time_machine",
            _("Watch its attention grow"),
            icon=":material/history:",
            checkpoint=run_checkpoint(run),
        )
    if has_model(lab, run):
        checkpoint = run_checkpoint(run)
        link("attention_heads", _("Look at its heads"), icon=":material/grid_view:", checkpoint=checkpoint)
        download(lab, run, _("Bundle"))
    link("runs", _("All runs"), icon=":material/table_rows:")


def curves(lab: Laboratory, run: Run, row: DeltaGenerator) -> None:
    """What was measured; how to look at it is asked in the row above."""
    log_steps, log_values = axes(row)
    last_step = axis_end(run)
    drawn_once(
        lambda: draw_curves(run.id, last_step, log_steps, log_values),
        "run", measured_version(lab), run.id, last_step, log_steps, log_values,
    )  # fmt: skip


def draw_curves(run_id: str, last_step: int, log_steps: bool, log_values: bool) -> None:
    """Draw what was measured.

    Args:
        run_id: Which run.
        last_step: Where the horizontal axes end.
        log_steps: Whether the horizontal axes are logarithmic.
        log_values: Whether the axis of the losses is.
    """
    block = block_size(last_step, MEANS)
    measured = shown_series([run_id], METRICS)
    if not measured:
        st.caption(_("Nothing has been measured yet."))
        return
    every = shown_series([run_id], NOISY, most=None)

    def lines(metric: str, name: str, colour: str, *, dashed: bool = False) -> list[Curve]:
        points = measured.get((run_id, metric))
        if points is None:
            return []
        broken = first_broken(points.steps, points.values)
        plain = Curve(
            steps=points.steps, values=points.values, colour=colour, name=name, dashed=dashed, broken=broken
        )
        if metric not in NOISY or block == 1:
            return [plain]
        whole = every[run_id, metric]
        steps, means = block_means(whole.steps, whole.values, block)
        return [replace(plain, name="", faint=True), replace(plain, steps=steps, values=means, broken=None)]

    grid = st.container(key="run_charts")

    def show(metric: str, title: str, shown: list[Curve], *, height: int) -> None:
        show_curves(
            shown, title, metric=metric, last_step=last_step, height=height, log_steps=log_steps,
            log_values=log_values, place=grid, key=f"chart_{metric}",
        )  # fmt: skip

    losses = [*lines("train_loss", _("train"), TRAIN), *lines("dev_loss", _("dev"), DEV)]
    show("dev_loss", _("Loss (nats per token)"), losses, height=LARGE)
    shares = [
        *lines("accuracy", _("tokens"), DEV),
        *lines("sequence_accuracy", _("sentences"), DEV, dashed=True),
    ]
    show("accuracy", _("Right on held-out pairs"), shares, height=LARGE)
    for metric in ("learning_rate", "grad_norm", "tokens_per_second"):
        show(metric, metric_title(metric), lines(metric, "", PLAIN), height=SMALL)
    if block > 1:
        st.caption(means_note(block))


def words(lab: Laboratory, run: Run) -> None:
    """What the model writes, and what happened."""
    # The times in the log are those of the viewer's clock, with the date where it is not today's.
    clock = st.context.timezone, today()
    drawn_once(lambda: draw_words(lab, run.id), "words", measured_version(lab), run.id, clock)


def draw_words(lab: Laboratory, run_id: str) -> None:
    """Write it."""
    samples, entries = lab.samples(run_id), lab.log(run_id)
    grid = st.container(key="run_words")
    if samples is not None:
        left = grid.container(gap="small")
        left.markdown(_("#### What it writes after step {step}").format(step=f"{samples.step:,}"))
        left.html(samples_table(samples))
        left.caption(
            _("Held-out pairs. Underlined: not in the reference at this place; ␣ stands for what is missing.")
        )
    if entries:
        right = grid.container(gap="small")
        right.markdown(_("#### What happened"))
        right.html(log_list(entries))


page_start()
page()
