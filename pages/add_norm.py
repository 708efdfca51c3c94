"""Add and Norm (section 3.1): what residual connection and layer normalisation do, and where the norm should stand.

Five steps: the gradients before any training, norms side by side while they learn, warm-up, depth, and which ends better.
"""

from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.runs.comparison import (
    LAYER_SERIES,
    MOST_POINTS,
    SCALAR_SERIES,
    Trial,
    members,
    read_trials,
    trial_of,
)
from lab.runs.laboratory import Laboratory
from lab.runs.presets import preset_names
from lab.ui import norm_form as form
from lab.ui.experiment_view import experiment_row, show_claim, show_experiment
from lab.ui.language import _
from lab.ui.live import keep_pace, live, measured_version
from lab.ui.norm_comparison import dress_norm, show_comparison
from lab.ui.norm_experiments import depth_pictures, gradient_pictures, quality_pictures, warm_up_pictures
from lab.ui.norm_words import COLOURS, equation, variant_title
from lab.ui.run_view import link, show_notices
from lab.ui.runs import shown_series, usable_laboratory
from lab.ui.shell import page_start
from lab.ui.state import segments, several

RESULTS = Path(__file__).parents[1] / "assets" / "results"
# What the experiments can be asked to try.
DEPTHS = (2, 4, 8, 16, 32, 64)
RATES, RISES = (0.001, 0.003, 0.01, 0.03), (20, 50, 100)
STACKS = (2, 4, 10, 20, 50)
# About how long they take on one core: a training, a layer of a seed, a seed.
WARM_UP_SECONDS, DEPTH_SECONDS, QUALITY_SECONDS = 2.3, 0.75, 15


def page() -> None:
    """The steps of the explanation."""
    st.title(_("Add & Norm"))
    dress_norm()
    steps = {
        "init": _("1 Before training"),
        "live": _("2 Side by side"),
        "warm-up": _("3 Warm-up"),
        "depth": _("4 Depth"),
        "end": _("5 Which ends better?"),
    }
    step = segments(_("Step"), steps, key="step", label_visibility="collapsed")
    lab = usable_laboratory()
    if lab is not None:
        {
            "init": before_training,
            "live": side_by_side,
            "warm-up": warm_up,
            "depth": depth,
            "end": final_quality,
        }[step](lab)


def equations(*variants: str) -> str:
    """The equations of variants under one another, named and in their colours, for KaTeX."""
    rows = r"\\".join(
        rf"\textcolor{{{COLOURS[each]}}}{{\text{{{variant_title(each)}}}}} & {equation(each)}"
        for each in variants
    )
    return rf"\begin{{array}}{{ll}}{rows}\end{{array}}"


def opening(text: str, claim: str, *variants: str) -> None:
    """What a step is about: a few words, a claim, and the equations beside them."""
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    with row.container(width=550, gap="small"):
        st.markdown(text)
        show_claim(claim)
    row.latex(equations(*variants), width="content")


def before_training(lab: Laboratory) -> None:
    """Step 1: the gradients at initialisation against the depth."""
    opening(
        _(
            "Around each sub-layer $f$, **Add** lets $x$ pass by and **Norm** steadies the numbers. Where the norm stands "
            "decides how great the gradients are before the first step, and how that changes with depth $L$."
        ),
        "norm-gradients-at-init", "post", "pre", "deepnorm",
    )  # fmt: skip
    row = experiment_row()
    with row.popover(_("Options"), icon=":material/tune:"):
        depths = several(
            _("Layers $L$"),
            {str(depth): str(depth) for depth in DEPTHS},
            key="depths",
            default=[*map(str, DEPTHS)],
        )
        seeds = st.select_slider(_("Seeds"), range(2, 11), 5, key="gradient_seeds", bind="query-params")
    if len(depths) < 2:
        st.error(_("Choose at least two depths: a law needs more than one point."))
    options = {"depths": [int(depth) for depth in depths], "seeds": seeds}
    show_experiment(
        lab, "norm-gradients-at-init", row, key="gradients", options=options, seconds=20,
        pictures=gradient_pictures, ready=len(depths) > 1,
    )  # fmt: skip
    with st.expander(_("What exactly is measured")):
        st.markdown(
            _(
                "In the setting of the theory: one stack of $L$ layers, one head whose attention is uniform "
                "($W_Q=W_K=0$), feed-forward networks of $d\\times d$, every matrix Gaussian with Xavier's variance, the "
                "loss of one token. The number is $\\lVert\\partial\\mathcal L/\\partial W^{(2,L)}\\rVert$ of the last "
                "layer's second feed-forward matrix, averaged over sequences. Beside it: the encoder and decoder that "
                "this project trains, $L$ layers each, on a batch of digits to reverse."
            )
        )


def side_by_side(lab: Laboratory) -> None:
    """Step 2: train the same model with its norm in three places."""
    st.markdown(
        _(
            "The same model, the same data in the same order, the same seed: only the norm stands elsewhere. Without "
            "warm-up, at a learning rate that is not small, it decides whether anything is learned."
        )
    )
    fields, row = st.container(), form.bar()
    with fields:
        plan = form.comparison_form(row)
    show_group(lab, plan, row, key="group", record="side-by-side.json")


def show_group(
    lab: Laboratory,
    plan: form.Plan | None,
    row: DeltaGenerator,
    *,
    key: str,
    record: str = "",
    layers: int = 0,
) -> None:
    """The button that starts a comparison, and the one that the address names, live; by default a recorded one, if any.

    Args:
        lab: Where they run.
        plan: What to start; None if the form is not right.
        row: Where the button goes.
        key: Name in the address.
        record: File of the recorded one.
        layers: Offer only comparisons of models with so many layers or more.
    """
    cost = None if plan is None else form.cost(lab, plan)
    wanted = row.button(
        _("Train side by side"), key=f"{key}_start", type="primary", icon=":material/play_arrow:",
        disabled=plan is None or not cost or not cost.fits,
    )  # fmt: skip
    if wanted and plan is not None and (started := form.start(lab, plan)) is not None:
        st.query_params[key] = started
    shown = form.choose_group(
        lab, key=key, shipped=_("Recorded comparison") if record else "", layers=layers,
        place=row.container(width=320),
    )  # fmt: skip
    if cost is not None:
        (row.caption if cost.fits else st.error)(cost.text)
    if shown == form.SHIPPED:
        show_recorded(record, key=key)
    if shown in (None, form.SHIPPED):
        return
    busy = any(run.unfinished for run in members(lab, shown))
    live(news, key, shown, busy=busy)


def show_recorded(name: str, *, key: str) -> None:
    """A comparison that comes with the project."""
    try:
        version = str(RESULTS / name), (RESULTS / name).stat().st_mtime_ns
        command, trials = recorded(*version)
    except (OSError, ValueError) as error:
        st.error(_("The recorded comparison cannot be read. Train one here instead."))
        st.code(str(error), language=None, wrap_lines=True)
        return
    show_comparison(trials, key=key, version=version)
    with st.expander(_("How this was recorded")):
        st.code(command, language="sh", wrap_lines=True)


@st.cache_resource(max_entries=8, show_spinner=False)
def recorded(path: str, modified: int) -> tuple[str, list[Trial]]:
    """A recorded comparison, read once for everybody; `modified` is part of what Streamlit remembers it by."""
    return read_trials(Path(path))


def news(key: str, group: str, every: float | None) -> None:
    """All that changes while a comparison works."""
    lab = usable_laboratory()
    if lab is None:
        return
    # Before the numbers: what comes meanwhile is drawn the next time.
    version = measured_version(lab), group
    runs = members(lab, group)
    keep_pace(every, busy=any(run.unfinished for run in runs))
    show_notices()
    row = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    form.status(lab, runs, row.container(width="stretch"))
    form.group_buttons(lab, group, row, key=key)
    with row:
        link(
            "runs",
            _("Settings and runs"),
            icon=":material/table_rows:",
            runs=",".join(run.id for run in runs),
        )
    measured = shown_series([run.id for run in runs], [*SCALAR_SERIES, *LAYER_SERIES], most=MOST_POINTS)
    trials = [trial_of(run, measured) for run in runs]
    show_comparison(trials, key=key, version=version)


def warm_up(lab: Laboratory) -> None:
    """Step 3: learning rate and warm-up, for each norm."""
    opening(
        _(
            "Warm-up raises the learning rate slowly from zero. Post-norm is said to need it, because at first its "
            "gradients near the output are great. Compare the panels with warm-up and without."
        ),
        "norm-warm-up", "post", "pre",
    )  # fmt: skip
    row = experiment_row()
    with row.popover(_("Options"), icon=":material/tune:"):
        rates = several(
            _("Learning rates"), {str(rate): f"{rate:g}" for rate in RATES}, key="rates", default=("0.01",)
        )
        rises = several(
            _("Steps of warm-up, beside none"),
            {str(rise): str(rise) for rise in RISES},
            key="rises",
            default=("50",),
        )
        norms = segments(
            _("Norms"), {"two": _("post- and pre-norm"), "three": _("and DeepNorm")}, key="warm_up_norms"
        )
        seeds = st.select_slider(_("Seeds"), range(1, 11), 5, key="warm_up_seeds", bind="query-params")
    ready = bool(rates and rises)
    if not ready:
        st.error(_("Choose at least one learning rate and one warm-up."))
    options = {
        "norms": ["post", "pre"] if norms == "two" else ["post", "pre", "deepnorm"],
        "learning_rates": sorted(map(float, rates)),
        "warm_ups": [0, *sorted(map(int, rises))],
        "seeds": seeds,
    }
    trainings = len(options["norms"]) * len(rates) * len(options["warm_ups"]) * seeds
    show_experiment(
        lab, "norm-warm-up", row, key="warm_up", options=options, seconds=max(3, round(WARM_UP_SECONDS * trainings)),
        pictures=warm_up_pictures, ready=ready,
    )  # fmt: skip


def depth(lab: Laboratory) -> None:
    """Step 4: deep models, and what the two parts are for."""
    opening(
        _(
            "Take **Add** away, and nothing is learned: each layer must pass on all that came before. With it a layer only "
            "adds a little, the less the more layers there are. Take **Norm** away: a shallow model does without it, in a "
            "deep one the numbers explode."
        ),
        "norm-depth", "post", "pre", "deepnorm", "none", "pre-alone",
    )  # fmt: skip
    row = experiment_row()
    with row.popover(_("Options"), icon=":material/tune:"):
        depths = several(
            _("Layers, half of them in each stack"), {str(count): str(count) for count in STACKS}, key="stacks",
            default=("4", "20"),
        )  # fmt: skip
        seeds = st.select_slider(_("Seeds"), range(1, 11), 2, key="depth_seeds", bind="query-params")
    if len(depths) < 2:
        st.error(_("Choose at least two depths: deep is said beside shallow."))
    counts = sorted(map(int, depths))
    show_experiment(
        lab, "norm-depth", row, key="depth", options={"depths": counts, "seeds": seeds},
        seconds=max(3, round(DEPTH_SECONDS * sum(counts) * seeds)), pictures=depth_pictures, ready=len(depths) > 1,
    )  # fmt: skip
    if form.DEEP in preset_names():
        deep(lab)


def deep(lab: Laboratory) -> None:
    """Fifty to two hundred layers, trained from here."""
    st.subheader(_("50, 100, 200 layers"))
    st.markdown(
        _(
            "Half of the layers read, half write; digits to reverse, {width} numbers a token. The training goes on when you "
            "close this page."
        ).format(width=form.deep_recipe().model["d_model"])
    )
    count, plan = form.deep_form()
    record = f"side-by-side-{count}.json"
    if not (RESULTS / record).exists():
        record = ""
    show_group(lab, plan, form.bar(), key="deep", record=record, layers=form.DEEP_LAYERS[0])


def final_quality(lab: Laboratory) -> None:
    """Step 5: which norm is better once both have learned."""
    opening(
        _(
            "Pre-norm is easier to train. Does post-norm reward the trouble? Both get warm-up here, and the same seeds, "
            "data and steps; what counts is how well they translate in the end."
        ),
        "norm-final-quality", "post", "pre",
    )  # fmt: skip
    row = experiment_row()
    with row.popover(_("Options"), icon=":material/tune:"):
        seeds = st.select_slider(_("Seeds"), range(2, 11), 3, key="quality_seeds", bind="query-params")
    show_experiment(
        lab, "norm-final-quality", row, key="quality", options={"seeds": seeds},
        seconds=max(3, round(QUALITY_SECONDS * seeds)), pictures=quality_pictures,
    )  # fmt: skip
    st.caption(
        _(
            "The recorded result is on real sentence pairs, English to Chinese; the test here is a toy translation that "
            "takes a minute. DeepNet speaks of large models trained until they get no better; small ones after so few "
            "steps may tell another story, and a claim is only as wide as what it was tested on."
        )
    )


page_start()
page()
