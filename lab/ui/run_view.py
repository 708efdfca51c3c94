"""What the pages of runs show: measured curves, samples, the log in words, times; and what leads on from a run."""

import re
import time
from collections.abc import Callable, Sequence
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.figures import curves as figures
from lab.figures.comparison import marked, settings
from lab.runs.laboratory import Laboratory
from lab.runs.problems import RunProblem
from lab.runs.store import LogEntry, Run, Samples
from lab.ui.language import _, language
from lab.ui.owner import owner
from lab.ui.recipe_form import form_fields, task_title
from lab.ui.recipe_widgets import escaped
from lab.ui.runs import problem_text
from lab.ui.state import segments
from transformer.checkpoint import WEIGHTS

STYLE = Path(__file__).resolve().parents[2] / "assets" / "css" / "runs.css"
# In the order in which they are offered; those in `SHARES` run from 0 to 100 %.
METRICS = (
    "train_loss", "dev_loss", "accuracy", "sequence_accuracy", "learning_rate", "grad_norm", "tokens_per_second",
)  # fmt: skip
LOSSES = ("train_loss", "dev_loss")
SHARES = ("accuracy", "sequence_accuracy")
# Gradients differ by powers of ten, so their axis is logarithmic whatever the person chose for the others.
ALWAYS_LOG = ("grad_norm",)
# Measured at every step, and so noisy that a mean is drawn too.
NOISY = ("train_loss", "grad_norm", "tokens_per_second")
# Points of a line of means.
MEANS = 120
# Steps of a run that is too long for axes that hold all of them from the start.
LONG = 2000

_NOTICES = "run_notices"


def dress_runs() -> None:
    """The style of these pages; once a run of the script."""
    st.html(f"<style>{STYLE.read_text(encoding='utf-8')}</style>")


def metric_title(name: str) -> str:
    """What a series is called, with its unit."""
    return {
        "train_loss": _("Training loss (nats per token)"),
        "dev_loss": _("Dev loss (nats per token)"),
        "accuracy": _("Tokens right"),
        "sequence_accuracy": _("Whole sentences right"),
        "learning_rate": _("Learning rate"),
        "grad_norm": _("Gradient norm"),
        "tokens_per_second": _("Target tokens per second"),
    }[name]


def metric_name(name: str) -> str:
    """What a series is called in a choice."""
    return {
        "train_loss": _("Training loss"),
        "dev_loss": _("Dev loss"),
        "tokens_per_second": _("Speed"),
    }.get(name) or metric_title(name)


def axis_end(run: Run) -> int:
    """Where the axes of a run's steps end: at its last one; if it is long at 1,000, 2,000, 5,000, ... as far as it has come.

    The first steps of a long run would be a dot at their left end.
    """
    if run.steps <= LONG:
        return run.steps
    return min(run.steps, figures.block_size(max(run.step, LONG // 2), 1))


def show_curves(
    curves: Sequence[figures.Curve],
    title: str,
    *,
    metric: str,
    last_step: int,
    height: int,
    log_steps: bool,
    log_values: bool = False,
    place: DeltaGenerator,
    key: str,
) -> None:
    """Draw curves over steps.

    Args:
        curves: The lines.
        title: What stands above.
        metric: Name of the series, which decides the axis.
        last_step: Where the horizontal axis ends.
        height: Height in pixels.
        log_steps: Whether the horizontal axis is logarithmic.
        log_values: Whether the vertical axis of losses is.
        place: Where to put it.
        key: The chart's key.
    """
    log = metric in ALWAYS_LOG or (log_values and metric in LOSSES)
    words = figures.Words(
        title=_("{title}, log scale").format(title=title) if log else title,
        step=_("step, log scale") if log_steps else _("step"),
        value=metric_title(metric),
        line=_("line"),
        broken=_("diverged at step {step}"),
    )
    chart = figures.line_chart(
        curves, words, last_step=last_step, height=height, log_steps=log_steps, log_values=log,
        share=metric in SHARES,
    )  # fmt: skip
    place.vega_lite_chart(chart.vega(), key=key, alt=_("{title} over the steps").format(title=title))


def means_note(block: int) -> str:
    """Say that lines are means, where they are."""
    return _("Thick: each point is the mean of {block} steps. Thin: what was measured.").format(
        block=f"{block:,}"
    )


def samples_table(samples: Samples) -> str:
    """What a model wrote beside what it should have written, as HTML; wrong pieces are underlined, missing ones named."""
    rows = []
    for source, reference, written in samples.rows:
        pieces = marked(reference, written)
        right = all(fits for _piece, fits in pieces)
        joint = " " if " " in f"{reference}{written}" else ""
        shown = joint.join(
            escape(piece) if fits else f"<mark>{escape(piece) or '␣'}</mark>" for piece, fits in pieces
        )
        verdict = _("right") if right else _("wrong")
        rows.append(
            f"<tr><td>{escape(source)}</td><td>{escape(reference)}</td><td>{shown}</td>"
            f"<td class='verdict'>{'✓' if right else '✗'} {escape(verdict)}</td></tr>"
        )
    heads = (_("It reads"), _("It should write"), _("It writes"), "")
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return (
        f"<div class='samples' tabindex='0'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def log_list(entries: Sequence[LogEntry]) -> str:
    """What happened to a run, the latest first, as HTML."""
    rows = "".join(
        f"<li><time>{escape(time_text(entry.time))}</time> {escape(log_words(entry))}</li>"
        for entry in reversed(entries)
    )
    return f"<ul class='log' tabindex='0'>{rows}</ul>"


def log_words(entry: LogEntry) -> str:
    """An entry of the log in words."""
    details = {"step": 0, "attempt": 1, "reason": "", **entry.details}
    words = {
        "created": _("Created, and put into the queue."),
        "queued": _("Put into the queue again."),
        "started": _("A worker began, attempt {attempt}."),
        "resumed": _("Went on from the checkpoint of step {step:,}."),
        "stop_requested": _("Asked to stop; it saves itself first."),
        "cancelled": _("Stopped."),
        "succeeded": _("Finished."),
        "failed": _("Ended by a problem."),
        "interrupted": _("The worker was told to end; it saved itself and waits again."),
        "killed": _("The worker did not answer and was ended."),
        "lost": _("The worker was lost at step {step:,}."),
        "recovered": _("Brought back into the queue by itself."),
        "damaged": _("The checkpoint was damaged, so the training begins anew: {reason}"),
        "imported": _("Imported from a bundle."),
    }
    text = words.get(entry.kind, entry.kind).format(**details)
    if entry.kind != "failed" or "code" not in entry.details:
        return text
    # Divergence is a result, and no problem of the run's.
    problem = problem_text(entry.details)
    return problem if entry.details["code"] == "diverged" else f"{text} {problem}"


def time_text(seconds: float) -> str:
    """A time of day, with the date if it is not today, where the person is."""
    then = datetime.fromtimestamp(seconds, _zone())
    return f"{then:%H:%M:%S}" if then.date() == today() else f"{then:%Y-%m-%d %H:%M}"


def today() -> date:
    """The date where the person is."""
    return datetime.fromtimestamp(time.time(), _zone()).date()


def _zone() -> ZoneInfo | None:
    try:
        return ZoneInfo(st.context.timezone) if st.context.timezone else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


def duration_text(seconds: float) -> str:
    """A duration in its two largest units."""
    whole = round(seconds)
    if whole < 60:
        return _("{seconds} s").format(seconds=whole)
    if whole < 3600:
        return _("{minutes} min {seconds} s").format(minutes=whole // 60, seconds=whole % 60)
    return _("{hours} h {minutes} min").format(hours=whole // 3600, minutes=whole % 3600 // 60)


def roughly(seconds: float) -> str:
    """A duration that was estimated, in its largest unit."""
    if seconds < 90:
        return _("{seconds} s").format(seconds=max(1, round(seconds)))
    if seconds < 5400:
        return _("{minutes} min").format(minutes=round(seconds / 60))
    return _("{hours} h").format(hours=round(seconds / 3600))


def describe(run: Run) -> str:
    """A training in a line: task, norm, size, seed."""
    chosen = settings(run.spec)
    norm = chosen["model.norm"]
    facts = [
        task_name(run),
        SettingWords().text("model.norm", norm) if norm != "none" else _("no normalisation"),
        _("{encoder} + {decoder} layers").format(
            encoder=chosen["model.encoder_layers"], decoder=chosen["model.decoder_layers"]
        ),
        _("width {width}").format(width=chosen["model.d_model"]),
        _("{heads} heads").format(heads=chosen["model.num_heads"]),
        _("seed {seed}").format(seed=chosen["training.seed"]),
    ]
    if "parameters" in run.facts:
        facts.append(_("{count} parameters").format(count=f"{run.facts['parameters']:,}"))
    if "train_pairs" in run.facts:
        facts.append(_("{count} pairs").format(count=f"{run.facts['train_pairs']:,}"))
    return " · ".join(facts)


def task_name(run: Run) -> str:
    """What a run works on, in a word or two."""
    if run.kind == "experiment":
        return str(run.spec["name"])
    data = run.spec["data"]
    return task_title(data["task"]) if data["task"] else _("sentence pairs")


class SettingWords:
    """Names and values of settings in the person's language; one for as many of them as are shown."""

    def __init__(self) -> None:
        self._fields = form_fields()
        self._files = {"data.train": _("Pairs to learn from"), "data.dev": _("Pairs held out")}
        self._sections = {"source_vocabulary": _("source"), "target_vocabulary": _("target")}

    def label(self, key: str) -> str:
        """What a setting is called, without formulas."""
        label = self._fields[key].label if key in self._fields else self._files.get(key, key)
        section = self._sections.get(key.partition(".")[0])
        plain = re.sub(r"\$([^$]*)\$", lambda formula: re.sub(r"[\\{}]", "", formula[1]), label)
        return f"{plain} ({section})" if section else plain

    def text(self, key: str, value: Any) -> str:
        """The value of a setting as people read it."""
        if value is None or value == "":
            return "–"
        if key == "probes":
            return _("{count} sentences").format(count=len(value))
        return self._fields[key].shown(value) if key in self._fields else str(value)


def is_mine(lab: Laboratory, run: Run) -> bool:
    """Whether this person may change a run."""
    return not run.shipped and (not lab.settings.shared or run.owner == owner())


def has_model(lab: Laboratory, run: Run) -> bool:
    """Whether a training has ended and left a model."""
    ended = run.kind == "training" and not run.unfinished
    return ended and (lab.folder(run.id) / WEIGHTS).exists()


def attempt_change(change: Callable[[str, str], None], run_id: str) -> None:
    """Do something to a run; if it cannot be done, the page says so."""
    try:
        change(run_id, owner())
    except RunProblem as problem:
        notice(problem_text(problem))


def notice(text: str, *, good: bool = False) -> None:
    """Have something said at the next run of the script, which follows a click."""
    st.session_state.setdefault(_NOTICES, []).append((text, good))


def show_notices() -> None:
    """Say what is to be said."""
    for text, good in st.session_state.pop(_NOTICES, []):
        say = st.success if good else st.warning
        say(text, icon=":material/check:" if good else ":material/info:")


def link(page: str, label: str, *, icon: str, **query: str) -> None:
    """A link to a page; the label is no Markdown."""
    query_params = {"lang": language(), **query}
    st.page_link(f"pages/{page}.py", label=escaped(label), icon=icon, query_params=query_params)


def download(lab: Laboratory, run: Run, label: str) -> None:
    """A button that gives the bundle of a run; the label is no Markdown."""
    st.download_button(
        escaped(label),
        lambda: lab.export(run.id),
        f"headlight-{run.id}.zip",
        "application/zip",
        key=f"bundle_{run.id}",
        on_click="ignore",
        icon=":material/download:",
        help=_(
            "Recipe, seed, versions, measurements and the model in one zip file; to import again on any machine."
        ),
    )


def axes(place: DeltaGenerator) -> tuple[bool, bool]:
    """Ask whether the axes of the steps and of the losses are logarithmic."""
    scales = {"linear": _("linear"), "log": _("logarithmic")}
    with place.popover(_("Axes"), icon=":material/tune:"):
        log_steps = segments(_("Step axis"), scales, key="steps") == "log"
        log_values = segments(_("Loss axis"), scales, key="values") == "log"
    return log_steps, log_values
