"""What a training will take, on the page that starts it: parameters, time, memory, and what waits before it."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import streamlit as st

from lab.runs.estimate import (
    Calibration,
    DataFacts,
    Estimate,
    Pairs,
    check_fits,
    estimate,
    facts_of_data,
    load_calibration,
)
from lab.runs.laboratory import Laboratory
from lab.runs.problems import RunProblem
from lab.runs.processes import detach
from lab.runs.store import UNFINISHED
from lab.ui.language import _
from lab.ui.run_view import roughly
from lab.ui.runs import problem_text
from transformer.recipe import Recipe

# Of a task with more examples to learn from so many are drawn, and taken to be like the rest.
SAMPLE = 20_000
ASK_AGAIN_SECONDS = 3.0


def calibration_of(lab: Laboratory) -> tuple[Calibration | None, bool]:
    """How fast this machine is, and whether that is being measured; measuring starts by itself, once."""
    calibration = load_calibration(lab.settings.calibration)
    if calibration is not None:
        return calibration, False
    return None, _measuring(str(lab.settings.data)).poll() is None


@st.cache_resource(show_spinner=False)
def _measuring(data: str) -> "subprocess.Popen[bytes]":
    from lab.ui.runs import laboratory

    settings = laboratory().settings
    return detach(
        "lab.runs.calibrate",
        str(settings.calibration),
        log=settings.data / "calibration.log",
        environment={"HEADLIGHT_DATA": data},
    )


def facts_of(recipe: Recipe, parts: Pairs | None) -> DataFacts:
    """What is known of a training's data; of many examples of a task, a sample.

    Raises:
        ValueError: If nothing is left of the data.
    """
    data = recipe.data
    if not data.task or data.task_train <= SAMPLE:
        return facts_of_data(recipe, pairs=parts)
    few = facts_of_data(replace(recipe, data=replace(data, task_train=SAMPLE)))
    factor = (data.task_train + data.task_dev) / (SAMPLE + data.task_dev)
    return replace(
        few,
        train=np.resize(few.train, (round(len(few.train) * data.task_train / SAMPLE), 2)),
        dropped=round(few.dropped * factor),
        text_bytes=round(few.text_bytes * factor),
        seconds=few.seconds * factor,
    )


def estimate_of(lab: Laboratory, recipe: Recipe, parts: Pairs | None) -> Estimate:
    """What a training will take.

    Raises:
        RunProblem: If it does not fit here.
        ValueError: If data and model do not go together.
    """
    estimated = estimate(recipe, facts_of(recipe, parts), calibration_of(lab)[0])
    lab.settings.data.mkdir(parents=True, exist_ok=True)
    check_fits(estimated, lab.settings, disk=shutil.disk_usage(lab.settings.data).free)
    return estimated


def misfit_text(recipe: Recipe, error: ValueError) -> str:
    """Why a training cannot start, in the person's language, and what to do."""
    if isinstance(error, RunProblem):
        details = error.details
        size, free = (f"{details.get(name, 0) / 1e9:.2g}" for name in ("bytes", "available"))
        texts = {
            "too_many_parameters": _(
                "The model would have {parameters:,} parameters; {limit:,} are allowed here. Make it narrower or shallower."
            ),
            "not_enough_memory": _(
                "It would take {size} GB of memory, and {free} GB are free. Make the model or the batches smaller."
            ),
            "not_enough_disk": _(
                "It would take {size} GB of disk, and {free} GB are free. Make room, or make the model smaller."
            ),
            "sequence_too_long": _(
                "A sentence has {longest} tokens, and the model takes {limit}. Raise “{model}”, or lower “{data}”."
            ),
        }
        text = texts.get(error.code)
        if text is None:
            return problem_text(error)
        names = {"model": _("Longest text the model takes"), "data": _("Longest pair")}
        return text.format(size=size, free=free, **names, **details)
    if recipe.model.get("tied_embeddings") == "all" and "tied_embeddings" in str(error):
        return _(
            "Shared embeddings of source and target need two vocabularies of the same size, and these are not. Share “target "
            "and output” only."
        )
    if recipe.data.task and "too few different" in str(error):
        return _("The task has no {count:,} different examples to hold out. Choose fewer.").format(
            count=recipe.data.task_dev
        )
    return _(
        "After leaving out pairs of more than {limit} tokens, too little is left to learn from or to test on. Raise “{name}”."
    ).format(limit=recipe.data.max_length, name=_("Longest pair"))


def show_estimate(lab: Laboratory, estimated: Estimate, repeat: int) -> None:
    """Say what a training will take."""
    calibration, measuring = calibration_of(lab)
    if calibration is None and measuring:
        st.fragment(_show_until_measured, run_every=ASK_AGAIN_SECONDS)(lab, estimated, repeat)
    else:
        st.markdown(estimate_text(lab, estimated, repeat, measuring=False))


def _show_until_measured(lab: Laboratory, estimated: Estimate, repeat: int) -> None:
    measuring = calibration_of(lab)[1]
    if not measuring:
        st.rerun()
    st.markdown(estimate_text(lab, estimated, repeat, measuring=True))


def estimate_text(lab: Laboratory, estimated: Estimate, repeat: int, *, measuring: bool) -> str:
    """What a training will take, in a sentence or two."""
    parts = [_("**{count:,}** parameters").format(count=estimated.parameters)]
    if estimated.seconds is not None:
        seconds = roughly(estimated.seconds * repeat)
        parts.append(_("about **{time}** on one core of this computer").format(time=seconds))
    else:
        parts.append(
            _("how long it takes is being measured …") if measuring else _("how long it takes is not known")
        )
    parts.append(_("**{size} GB** of memory").format(size=f"{estimated.memory.total / 1e9:.2g}"))
    epochs = f"{estimated.epochs:.2g}" if estimated.epochs < 10 else f"{estimated.epochs:,.0f}"
    parts.append(_("every pair read {epochs} times").format(epochs=epochs))
    waiting = len(lab.store.runs(states=UNFINISHED))
    if waiting >= lab.settings.slots:
        parts.append(_("{count} runs are before it").format(count=waiting))
    return " · ".join(parts)
