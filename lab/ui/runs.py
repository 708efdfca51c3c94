"""Runs for the pages: one laboratory for everybody, what was measured read once for all viewers, and the words for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lab.runs.laboratory import Laboratory
from lab.runs.problems import RunProblem
from lab.runs.settings import read_settings
from lab.runs.store import Run, Series
from lab.ui.language import _

MOST_POINTS = 400


def laboratory() -> Laboratory:
    """The laboratory of this machine; there is a supervisor if there is work.

    Raises:
        RunProblem: If its database cannot be used.
    """
    found = _laboratory()
    found.watch()
    return found


@st.cache_resource(show_spinner=False)
def _laboratory() -> Laboratory:
    return Laboratory(read_settings())


def usable_laboratory() -> Laboratory | None:
    """The laboratory, or a sentence on the page that says why there is none."""
    try:
        return laboratory()
    except ValueError as error:
        st.error(
            _(
                "The database of the training runs cannot be used. Rename or move it; a new one is made by itself."
            )
        )
        st.code(str(error), language=None, wrap_lines=True)
        return None


def shown_series(
    run_ids: Sequence[str], names: Sequence[str], *, most: int | None = MOST_POINTS
) -> dict[tuple[str, str], Series]:
    """What was measured, by run and name, read once however many people look at it.

    Args:
        run_ids: Which runs.
        names: Which series.
        most: Thin each series to about so many points that keep its extremes.
    """
    store = laboratory().store
    return _shown_series(str(store.path), store.version(), tuple(run_ids), tuple(names), most)


@st.cache_resource(max_entries=64, show_spinner=False)
def _shown_series(
    path: str, version: tuple[int, int], run_ids: tuple[str, ...], names: tuple[str, ...], most: int | None
) -> dict[tuple[str, str], Series]:
    return _laboratory().series(run_ids, names, most=most)


def state_name(run: Run) -> str:
    """The state of a run in the person's language."""
    if run.error is not None and run.error["code"] == "diverged":
        return _("diverged")
    return {
        "queued": _("waiting"),
        "starting": _("starting"),
        "running": _("running"),
        "succeeded": _("finished"),
        "failed": _("failed"),
        "cancelled": _("stopped"),
        "lost": _("lost"),
    }[run.state]


def problem_text(problem: RunProblem | Mapping[str, Any]) -> str:
    """What a problem means and what to do, in the person's language."""
    given = problem.to_dict() if isinstance(problem, RunProblem) else dict(problem)
    details: dict[str, Any] = {
        "run": "",
        "limit": 0,
        "steps": 0,
        "step": 0,
        "reason": "",
        "times": 0,
        **given,
    }
    texts = {
        "unknown_run": _("There is no run {run} here; it may have been deleted. Choose one from the list of runs."),
        "not_yours": _("Run {run} belongs to somebody else, who alone may change it. Clone it to go on from there."),
        "still_running": _("This run is still at work. Stop it first, then delete it."),
        "nothing_to_resume": _("There is nothing to resume: the run is at work, or it has reached its end."),
        "too_many_runs": _("You have {limit} runs that wait or work. Stop one, or wait until one has ended."),
        "no_checkpoint": _("This run has not saved a model yet. Wait a few seconds, then try again."),
        "bad_bundle": bundle_text(str(details["reason"])),
        "too_many_steps": _("{steps:,} steps are too many; {limit:,} are allowed here. Choose fewer."),
        "diverged": _(
            "The training diverged: after step {step} the loss was no number any more. That is a result, too. "
            "Try a smaller learning rate, a longer warm-up, or pre-norm."
        ),
        "disk_full": _("The disk is full. Make room, then resume: the last checkpoint is still there."),
        "out_of_memory": _("There was not enough memory. Make the model or the batches smaller."),
        "bad_data": _("The data or a setting is not right: {reason}"),
        "crashed": _("Something unforeseen went wrong: {reason}. Resume goes on from the last checkpoint."),
        "killed": _(
            "The worker was ended from outside {times} times without getting further, perhaps for want of memory. "
            "Make the model smaller, or resume."
        ),
    }  # fmt: skip
    text = texts.get(given["code"])
    if given["code"] == "bad_bundle":
        return str(text)
    return str(given.get("sentence", given["code"])) if text is None else text.format(**details)


def bundle_text(reason: str) -> str:
    """Why a bundle was not imported, in the person's language."""
    texts = {
        "too_large": _("The bundle is larger than is allowed here. Nothing was imported."),
        "not_a_zip": _(
            "This is no bundle, or it was cut off or damaged on the way. Download it again from its run."
        ),
        "bad_entry": _(
            "The bundle holds files that have no place in one, so nothing was imported. Take one that was not changed."
        ),
        "incomplete": _(
            "A file is missing in the bundle, so nothing was imported. Download it again from its run."
        ),
        "bad_manifest": _("What the bundle says of itself cannot be read, so nothing was imported."),
        "bad_recipe": _("The settings in the bundle cannot be used here, so nothing was imported."),
        "bad_model": _(
            "The model in the bundle is damaged, too large, or not that of its settings. Nothing was imported."
        ),
        "bad_data": _("The sentence pairs in the bundle are damaged, so nothing was imported."),
    }
    return texts.get(reason, texts["not_a_zip"])
