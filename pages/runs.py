"""All runs: a table to find them in, their measurements laid over one another, and bundles to take away and bring.

Which runs are chosen, what is compared and what is looked for stands in the address. While a run is at work the page
asks for news every two seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lab.figures.comparison import settings, shortened
from lab.runs.laboratory import Laboratory
from lab.runs.problems import RunProblem
from lab.runs.settings import MEGABYTE
from lab.runs.store import Run
from lab.ui.checkpoints import run_title
from lab.ui.comparison_view import MOST_LINES, differences_table, groups_of, overlay
from lab.ui.language import _, language
from lab.ui.live import keep_pace, live
from lab.ui.owner import owner
from lab.ui.recipe_widgets import escaped
from lab.ui.run_view import (
    METRICS,
    SettingWords,
    axes,
    download,
    dress_runs,
    duration_text,
    has_model,
    is_mine,
    link,
    metric_name,
    notice,
    show_notices,
    task_name,
)
from lab.ui.runs import problem_text, shown_series, state_name, usable_laboratory
from lab.ui.shell import page_start
from lab.ui.state import menu, several
from lab.ui.uploader import dress_uploader

EVERY_SECONDS = 2.0
# So many runs are laid over one another when the page is opened.
OPENING = 5
# Letters of a name in a row of links.
LINK_WIDTH = 24
# The table shows so many rows before it scrolls.
ROWS = 8
CHOSEN, PUBLISHED, DELETED = "runs_chosen", "runs_in_address", "runs_deleted"
# Counts what makes the table and the field for files new ones.
GENERATION = "runs_generation"


def page() -> None:
    """The table, what is chosen in it, and the comparison."""
    dress_runs()
    top = st.container(horizontal=True, vertical_alignment="bottom")
    top.title(_("All runs"), width="content")
    lab = usable_laboratory()
    if lab is None:
        return
    busy = any(run.unfinished for run in lab.runs())
    live(news, busy=busy, least=EVERY_SECONDS)


def news(every: float | None) -> None:
    """All that changes while runs work."""
    lab = usable_laboratory()
    if lab is None:
        return
    runs = lab.runs()
    keep_pace(every, busy=any(run.unfinished for run in runs), least=EVERY_SECONDS)
    show_notices()
    shown = tools(lab, runs)
    chosen = table(lab, runs, shown)
    publish(chosen)
    act(lab, chosen)
    compare(lab, [run for run in chosen if run.kind == "training"])


# Which runs


def tools(lab: Laboratory, runs: Sequence[Run]) -> list[Run]:
    """What is looked for, and what brings runs back; returns the runs to list."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    states = {
        "all": _("all"),
        "unfinished": _("waiting or at work"),
        "succeeded": _("finished"),
        "diverged": _("diverged"),
        "failed": _("failed"),
        "cancelled": _("stopped"),
    }
    state = menu(_("State"), states, key="state", place=row.container(width=190))
    text = row.text_input(
        _("Find"), key="find", bind="query-params", icon=":material/search:", width=260,
        placeholder=_("name, task or ID"),
    )  # fmt: skip
    link_row = row.container(horizontal=True, vertical_alignment="center", width="content")
    with link_row:
        bring_in(lab)
        bring_back(lab)
        link("train", _("Train a model"), icon=":material/model_training:")
    return [run for run in runs if in_state(run, state) and is_named(run, text or "")]


def in_state(run: Run, state: str) -> bool:
    """Whether a run is in a state of the menu."""
    diverged = run.error is not None and run.error["code"] == "diverged"
    return {
        "all": True,
        "unfinished": run.unfinished,
        "diverged": diverged,
        "failed": run.state in ("failed", "lost") and not diverged and not run.unfinished,
    }.get(state, run.state == state)


def is_named(run: Run, text: str) -> bool:
    """Whether every word of a text is found in what is known of a run."""
    known = f"{run_title(run)} {run.name} {task_name(run)} {run.id} {state_name(run)}".casefold()
    return all(word in known for word in text.casefold().split())


def table(lab: Laboratory, runs: Sequence[Run], shown: Sequence[Run]) -> list[Run]:
    """The table; returns the runs that are chosen, in the order of the list, also those that are not shown."""
    chosen = chosen_ids(lab, runs)
    if not shown:
        st.info(_("No run is like that. Change what is looked for above."))
        return [run for run in runs if run.id in chosen]
    ids = [run.id for run in shown]
    # Another list is another table, for rows are chosen by their places.
    key = f"table_{hash((tuple(ids), st.session_state.get(GENERATION, 0)))}"
    found = st.dataframe(
        pd.DataFrame(rows(lab, shown)),
        key=key,
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={
            "selection": {"rows": [place for place, run_id in enumerate(ids) if run_id in chosen]}
        },
        column_config=columns(),
        height=38 + 35 * min(ROWS, len(ids)),
        placeholder="–",
        alt=_("All runs: a row each"),
    )
    picked = {ids[place] for place in found["selection"]["rows"] if place < len(ids)}
    st.session_state[CHOSEN] = {run_id for run_id in chosen if run_id not in ids} | picked
    return [run for run in runs if run.id in st.session_state[CHOSEN]]


def chosen_ids(lab: Laboratory, runs: Sequence[Run]) -> set[str]:
    """The runs that the address or the session asks for; at first the newest that have measured something."""
    asked = st.query_params.get("runs")
    if asked is not None and asked != st.session_state.get(PUBLISHED):
        st.session_state[PUBLISHED] = asked
        st.session_state[CHOSEN] = set(asked.split(",")) & {run.id for run in runs}
    elif CHOSEN not in st.session_state:
        trained = [run for run in runs if run.kind == "training" and run.step]
        st.session_state[CHOSEN] = {run.id for run in trained[:OPENING]}
    return st.session_state[CHOSEN] & {run.id for run in runs}


def publish(chosen: Sequence[Run]) -> None:
    """Put the chosen runs into the address."""
    text = ",".join(run.id for run in chosen)
    st.session_state[PUBLISHED] = text
    if st.query_params.get("runs") != text:
        st.query_params["runs"] = text


def rows(lab: Laboratory, runs: Sequence[Run]) -> dict[str, list[Any]]:
    """The columns of the table."""
    trained = [run.id for run in runs if run.kind == "training"]
    measured = shown_series(trained, ["dev_loss", "accuracy"], most=2)

    def last(run: Run, name: str) -> float | None:
        series = measured.get((run.id, name))
        return None if series is None else float(series.values[-1])

    given = {run.id: settings(run.spec) if run.kind == "training" else {} for run in runs}
    words = SettingWords()

    def size(run: Run) -> str:
        parts = ("model.encoder_layers", "model.decoder_layers", "model.d_model")
        return "{} + {} · {}".format(*(given[run.id][part] for part in parts)) if given[run.id] else ""

    return {
        "name": [run_title(run) for run in runs],
        "page": [f"run?run={run.id}&lang={language()}" for run in runs],
        "state": [state_name(run) for run in runs],
        "progress": [run.step / max(run.steps, 1) for run in runs],
        "dev_loss": [last(run, "dev_loss") for run in runs],
        "accuracy": [last(run, "accuracy") for run in runs],
        "norm": [words.text("model.norm", given[run.id].get("model.norm")) for run in runs],
        "size": [size(run) for run in runs],
        "seed": [given[run.id].get("training.seed") for run in runs],
        "task": [task_name(run) for run in runs],
        "duration": [duration_text(run.seconds) if run.seconds else "" for run in runs],
        "created": [pd.Timestamp(run.created, unit="s", tz="UTC") if run.created else None for run in runs],
        "whose": [whose(run) for run in runs],
    }


def whose(run: Run) -> str:
    """Whose a run is, in a word."""
    if run.shipped:
        return _("comes with it")
    return _("yours") if run.owner == owner() else _("somebody else's")


def columns() -> Mapping[str, Any]:
    """What the columns of the table are called and how they look."""
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "name": text(_("Name"), pinned=True),
        "state": text(_("State")),
        "progress": st.column_config.ProgressColumn(
            _("Progress"), format="percent", min_value=0, max_value=1
        ),
        "task": text(_("Task")),
        "norm": text(_("Norm")),
        "size": text(_("Layers · width")),
        "seed": number(_("Seed"), format="%d"),
        "dev_loss": number(_("Dev loss"), format="%.4f"),
        "accuracy": number(_("Tokens right"), format="percent"),
        "duration": text(_("Took")),
        "created": st.column_config.DatetimeColumn(
            _("Made"), format="YYYY-MM-DD HH:mm", timezone=st.context.timezone
        ),
        "whose": text(_("Whose")),
        "page": st.column_config.LinkColumn(_("Page"), display_text=r"run=([a-z0-9-]+)"),
    }


# What can be done with them


def act(lab: Laboratory, chosen: Sequence[Run]) -> None:
    """Open, take away or delete what is chosen; take back what was deleted a moment ago."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        bundled = [run for run in chosen if has_model(lab, run)]
        with st.popover(_("Bundles"), icon=":material/download:", disabled=not bundled):
            for run in bundled:
                download(lab, run, f"{run_title(run)} · {run.id}")
        deletable = [run.id for run in chosen if is_mine(lab, run) and not run.unfinished]
        st.button(
            _("Delete"), key="delete", icon=":material/delete:", disabled=not deletable,
            on_click=delete, args=(lab, deletable),
        )  # fmt: skip
        opened = chosen[:OPENING]
        titles = [shortened(run_title(run), LINK_WIDTH) for run in opened]
        for run, title in zip(opened, titles, strict=True):
            label = f"{title} {run.id}" if titles.count(title) > 1 else title
            link("run", label, icon=":material/monitoring:", run=run.id)
    gone = st.session_state.get(DELETED, [])
    if gone:
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            st.markdown(_("Deleted: {count}.").format(count=len(gone)), width="content")
            st.button(_("Undo"), key="undo", icon=":material/undo:", on_click=restore, args=(lab, gone))


def delete(lab: Laboratory, run_ids: Sequence[str]) -> None:
    """Delete runs, and remember which."""
    gone = []
    for run_id in run_ids:
        try:
            lab.delete(run_id, owner())
            gone.append(run_id)
        except RunProblem as problem:
            notice(problem_text(problem))
    st.session_state[DELETED] = gone


def restore(lab: Laboratory, run_ids: Sequence[str]) -> None:
    """Bring deleted runs back, chosen as they were."""
    for run_id in run_ids:
        try:
            lab.restore(run_id)
            choose(run_id)
        except RunProblem as problem:
            notice(problem_text(problem))
    st.session_state[DELETED] = []


def choose(run_id: str) -> None:
    """Choose one more run; the table is made anew with it."""
    st.session_state[CHOSEN] = {*st.session_state.get(CHOSEN, ()), run_id}
    st.session_state[GENERATION] = st.session_state.get(GENERATION, 0) + 1


def bring_in(lab: Laboratory) -> None:
    """Import a bundle."""
    with st.popover(_("Import a bundle"), icon=":material/upload:"):
        dress_uploader()
        # Another key is an empty field.
        key = f"bundle_{st.session_state.get(GENERATION, 0)}"
        st.file_uploader(
            _("A bundle that a run's page gave, at most {megabytes} MB").format(
                megabytes=lab.settings.bundle_bytes // MEGABYTE
            ),
            key=key,
            max_upload_size=lab.settings.bundle_bytes // MEGABYTE,
            on_change=import_file,
            args=(lab, key),
        )


def import_file(lab: Laboratory, key: str) -> None:
    """Add the run of an uploaded bundle."""
    file = st.session_state.get(key)
    if file is None:
        return
    try:
        run_id = lab.import_bundle(file.getvalue(), owner())
    except RunProblem as problem:
        notice(problem_text(problem))
        st.session_state[GENERATION] = st.session_state.get(GENERATION, 0) + 1
        return
    choose(run_id)
    notice(_("Imported as {run}; it is chosen in the table.").format(run=run_id), good=True)


def bring_back(lab: Laboratory) -> None:
    """What was deleted within a day."""
    gone = [run for run in lab.runs(deleted=True) if is_mine(lab, run)]
    if not gone:
        return
    with st.popover(_("Deleted"), icon=":material/restore_from_trash:"):
        st.caption(_("Kept for a day."))
        for run in gone:
            st.button(
                _("Bring back {run}").format(run=escaped(f"{run_title(run)} · {run.id}")), key=f"restore_{run.id}",
                icon=":material/undo:", on_click=restore, args=(lab, [run.id]),
            )  # fmt: skip


# How they compare


def compare(lab: Laboratory, runs: Sequence[Run]) -> None:
    """Measurements laid over one another, and the settings that differ."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    names = {name: metric_name(name) for name in METRICS}
    metrics = several(
        _("Compare"), names, key="metrics", default=("dev_loss", "accuracy"), place=row.container(width="stretch")
    )  # fmt: skip
    log_steps, log_values = axes(row)
    if not runs or not metrics:
        st.info(
            _("Choose trainings in the table, and measurements above: they are laid over one another here.")
        )
        return
    groups = groups_of(runs)
    if len(groups) > MOST_LINES:
        st.caption(_("The first {count} are drawn.").format(count=MOST_LINES))
    overlay(lab, groups[:MOST_LINES], metrics, log_steps=log_steps, log_values=log_values)
    st.markdown(_("#### Settings that differ"))
    if len(groups) == 1:
        st.markdown(
            _("None but the seed.") if len(runs) > 1 else _("Choose a second run to compare it with.")
        )
    else:
        st.html(differences_table(groups[:MOST_LINES]))


page_start()
page()
