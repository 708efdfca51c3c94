"""The form of a comparison: what to train, with which norms and seeds; its start; and the comparisons that are there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from lab.figures.comparison import settings
from lab.runs.comparison import VARIANTS, arms, members, shaped, start_comparison, variant_of
from lab.runs.laboratory import Laboratory
from lab.runs.presets import preset_names, read_preset
from lab.runs.problems import RunProblem
from lab.runs.store import Run
from lab.ui.estimates import estimate_of, misfit_text
from lab.ui.language import _
from lab.ui.norm_words import variant_title
from lab.ui.owner import owner
from lab.ui.recipe_form import Choice, Field, FieldError, Whole, form_fields, task_title
from lab.ui.recipe_widgets import escaped
from lab.ui.run_view import attempt_change, is_mine, roughly, time_text
from lab.ui.runs import problem_text, state_name
from lab.ui.state import menu, segments, several
from transformer.recipe import Recipe, read_recipe

RECIPES = Path(__file__).parents[2] / "assets" / "recipes"
SIDE_BY_SIDE = "side-by-side.toml"
WIDTHS = (16, 32, 48, 64, 96, 128, 192, 256)
MOST_LAYERS, MOST_SEEDS = 200, 10
NORMS = ("pre", "post", "deepnorm")
# Pixels of a field.
NARROW, MIDDLE, WIDE, BROAD = 92, 120, 140, 190
# What stands behind the button for more: settings of the optimiser, and two of what is trained.
MORE = (
    "training.schedule", "training.clip_norm", "training.beta1", "training.beta2", "training.epsilon",
    "training.weight_decay", "training.label_smoothing", "training.batch_tokens", "model.dropout", "training.seed",
)  # fmt: skip
SHIPPED = "shipped"
DEEP, DEEP_LAYERS = "deep", (50, 100, 200)
# So many comparisons are offered to come back to.
MOST_GROUPS = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a comparison will train."""

    recipe: Recipe
    variants: tuple[str, ...]
    seeds: int


def base_recipe(task: str) -> Recipe:
    """What a comparison on a task begins from: the shipped one, with the data of the task's preset.

    Raises:
        ValueError: If a file is missing or not right.
    """
    base = read_recipe(RECIPES / SIDE_BY_SIDE)
    if task == base.data.task:
        return base
    preset = read_preset(task)
    model = {name: value for name, value in preset.model.items() if name in ("positions", "max_length")}
    return replace(
        base,
        data=preset.data,
        source_vocabulary=preset.source_vocabulary,
        target_vocabulary=preset.target_vocabulary,
        model={**base.model, **model},
        training=replace(base.training, batch_tokens=preset.training.batch_tokens),
    )


def tasks() -> list[str]:
    """The toy tasks that have a preset of their own, the shipped comparison's first."""
    first = read_recipe(RECIPES / SIDE_BY_SIDE).data.task
    found = []
    for name in preset_names():
        try:
            data = read_preset(name).data
        except ValueError:
            continue
        if data.task == name != first:
            found.append(name)
    return [first, *found]


def bar() -> DeltaGenerator:
    """A row for buttons."""
    return st.container(horizontal=True, vertical_alignment="bottom", gap="small")


def comparison_form(more: DeltaGenerator) -> Plan | None:
    """The controls; None, with what is wrong below them, if something is.

    Args:
        more: Where the button stands behind which the other settings are.
    """
    known = form_fields()
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    titles = {name: task_title(name) for name in tasks()}
    task = menu(_("Task"), titles, key="norm_task", place=row.container(width=WIDE))
    base = base_recipe(task)
    depth = Whole(
        key="norm_layers", label=_("Layers"), low=1, high=MOST_LAYERS,
        help=_("So many in the encoder, and as many in the decoder."),
    )  # fmt: skip
    layers = field_input(depth, str(base.model["encoder_layers"]), row)
    width = row.select_slider(
        _("Width $d_{model}$"),
        WIDTHS,
        base.model["d_model"],
        key="norm_width",
        bind="query-params",
        width=WIDE,
    )
    peak = replace(known["training.peak"], label=_("Learning rate"))
    rate = field_input(peak, peak.write(base.training.peak), row, width=MIDDLE)
    rise = replace(known["training.warmup_steps"], label=_("Warm-up"))
    warmup = field_input(rise, str(base.training.warmup_steps), row, width=MIDDLE)
    steps = field_input(known["training.steps"], str(base.training.steps), row)
    again = Whole(
        key="norm_seeds", label=_("Seeds"), low=1, high=MOST_SEEDS,
        help=_("How many trainings of each norm. All norms of a seed read the same data in the same order."),
    )  # fmt: skip
    seeds = field_input(again, "1", row)
    variants = several(
        _("Norm and residual connection"), {name: variant_title(name) for name in VARIANTS},
        key="norm_variants", default=NORMS, label_visibility="collapsed",
    )  # fmt: skip
    training: dict[str, Any] = {}
    model: dict[str, Any] = {}
    with more.popover(_("More"), icon=":material/tune:"):
        place = st.container(horizontal=True, gap="small", width=2 * BROAD + 40)
        for key in MORE:
            section, _dot, name = key.partition(".")
            default = getattr(base.training, name) if section == "training" else base.model.get(name, 0.0)
            value = field_input(known[key], known[key].write(default), place, width=BROAD)
            (training if section == "training" else model)[name] = value
    given = (layers, width, rate, warmup, steps, seeds, *training.values(), *model.values())
    if any(value is None for value in given):
        st.error(_("One of the settings above is not right."))
        return None
    if not variants:
        st.error(_("Choose at least one norm to train."))
        return None
    recipe = shaped(base, layers=int(layers), width=int(width), steps=int(steps))
    values = recipe.to_dict()
    values["model"] |= model
    values["training"] |= {**training, "peak": rate, "warmup_steps": warmup}
    try:
        return Plan(recipe=Recipe.from_dict(values), variants=tuple(variants), seeds=int(seeds))
    except ValueError as error:
        st.error(_("These settings do not go together: {reason}").format(reason=error))
        return None


def field_input(each: Field, default: str, place: DeltaGenerator, *, width: int = NARROW) -> Any:
    """A field for one setting, bound to the address; None, with what is wrong below, if its text stands for no value."""
    key = f"norm_{each.name}" if each.name else each.key
    box = place.container(width=width, gap=None)
    if isinstance(each, Choice):
        return menu(each.label, each.names, key=key, default=default, place=box)
    text = box.text_input(
        each.label, default, key=key, bind="query-params", help=each.help, autocomplete="off"
    )
    try:
        return each.read(text)
    except FieldError as error:
        box.caption(f":red[{escaped(str(error))}]")
        return None


def deep_recipe() -> Recipe:
    """What a comparison of deep models begins from."""
    return read_preset(DEEP)


def deep_form() -> tuple[int, Plan | None]:
    """The controls of a comparison of deep models: layers, and the plan, or what is wrong with it below them and None."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    counts = {str(count): str(count) for count in DEEP_LAYERS}
    count = int(segments(_("Layers"), counts, key="deep_count", place=row.container(width="content")))
    variants = several(
        _("Norm and residual connection"), {name: variant_title(name) for name in VARIANTS}, key="deep_variants",
        default=("pre",), place=row.container(width="content"),
    )  # fmt: skip
    if not variants:
        st.error(_("Choose at least one norm to train."))
        return count, None
    base = deep_recipe()
    model = base.model
    recipe = shaped(base, layers=count // 2, width=model["d_model"], steps=base.training.steps)
    recipe = replace(recipe, model={**recipe.model, "d_ff": model["d_ff"]})
    return count, Plan(recipe=recipe, variants=tuple(variants), seeds=1)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a plan takes.

    Attributes:
        text: In words: how many trainings, how long; or why they cannot start.
        fits: Whether they can.
    """

    text: str
    fits: bool


def cost(lab: Laboratory, plan: Plan) -> Cost:
    """What a plan takes here."""
    count = len(plan.variants) * plan.seeds
    try:
        estimated = estimate_of(lab, plan.recipe, None)
    except ValueError as error:
        return Cost(text=misfit_text(plan.recipe, error), fits=False)
    slots = min(lab.settings.slots, count)
    parts = [_("Trainings: {count}, {slots} at a time").format(count=count, slots=slots)]
    if estimated.seconds is not None:
        rounds = math.ceil(count / slots)
        parts.append(_("about {duration}").format(duration=roughly(estimated.seconds * rounds)))
    return Cost(text=" · ".join(parts), fits=True)


def start(lab: Laboratory, plan: Plan) -> str | None:
    """Start a comparison and return its ID; None, with a sentence, if it cannot be."""
    model, task = plan.recipe.model, plan.recipe.data.task
    size = f"{task_title(task)} {model['encoder_layers']} + {model['decoder_layers']}"
    names = {variant: f"{variant_title(variant)} · {size}" for variant in plan.variants}
    try:
        return start_comparison(lab, arms(plan.recipe, plan.variants, plan.seeds), owner=owner(), names=names)
    except RunProblem as problem:
        st.error(problem_text(problem))
        return None


def groups(lab: Laboratory) -> dict[str, list[Run]]:
    """The comparisons that are there, the newest first, each with its trainings in their order."""
    found: dict[str, list[Run]] = {}
    for run in lab.store.runs():
        if run.group and run.kind == "training":
            found.setdefault(run.group, []).insert(0, run)
    return found


def group_title(runs: Sequence[Run]) -> str:
    """What a comparison is called."""
    spec = runs[0].spec
    model = spec["model"]
    variants = dict.fromkeys(variant_of(run.spec) for run in runs)
    names = ", ".join(variant_title(variant) for variant in variants)
    count = len(runs) // len(variants)
    task = spec["data"]["task"]
    parts = [
        task_title(task) if task else _("sentence pairs"),
        f"{model.get('encoder_layers', 6)} + {model.get('decoder_layers', 6)}",
        f"{names} ×{count}" if count > 1 else names,
        time_text(runs[0].created),
    ]
    return " · ".join(parts)


def choose_group(
    lab: Laboratory, *, key: str, shipped: str, layers: int, place: DeltaGenerator
) -> str | None:
    """The comparison that the address asks for, by default the shipped one.

    Args:
        lab: Where comparisons are.
        key: Name in the address.
        shipped: What the shipped one is called; empty if there is none.
        layers: Offer only comparisons of models with so many layers or more.
        place: Where the menu stands.

    Returns:
        Its ID, or `SHIPPED`; None if there is none at all.
    """
    found = {group: runs for group, runs in groups(lab).items() if depth_of(runs[0]) >= layers}
    asked = st.query_params.get(key)
    recent = list(found)[:MOST_GROUPS]
    if asked in found and asked not in recent:
        recent.append(asked)
    if asked is not None and asked not in (SHIPPED, *found):
        st.warning(
            _("There is no comparison {group} here; its runs may have been deleted.").format(
                group=escaped(asked[:40])
            )
        )
    titles = {SHIPPED: shipped} if shipped else {}
    titles |= {group: group_title(found[group]) for group in recent}
    return menu(_("Shown below"), titles, key=key, place=place) if titles else None


def depth_of(run: Run) -> int:
    """The layers of a training's model, of both stacks."""
    chosen = settings(run.spec)
    return int(chosen["model.encoder_layers"]) + int(chosen["model.decoder_layers"])


def group_buttons(lab: Laboratory, group: str, place: DeltaGenerator, *, key: str) -> None:
    """Stop or resume all trainings of a comparison at once."""
    runs = [run for run in members(lab, group) if is_mine(lab, run)]
    stoppable = [run.id for run in runs if run.unfinished and run.stop_requested is None]
    resumable = [run.id for run in runs if run.resumable]
    if any(run.unfinished for run in runs):
        place.button(
            _("Stop all"), key=f"{key}_stop", icon=":material/stop_circle:", disabled=not stoppable,
            on_click=change_all, args=(lab.stop, stoppable),
        )  # fmt: skip
    if resumable:
        place.button(
            _("Resume all"), key=f"{key}_resume", icon=":material/play_arrow:",
            on_click=change_all, args=(lab.resume, resumable),
        )  # fmt: skip


def change_all(change: Callable[[str, str], None], run_ids: Sequence[str]) -> None:
    """Do something to runs; if it cannot be done to one, the page says so."""
    for run_id in run_ids:
        attempt_change(change, run_id)


def status(lab: Laboratory, runs: Sequence[Run], place: DeltaGenerator) -> None:
    """How far the trainings of a comparison are."""
    states = [state_name(run) for run in runs]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    facts = [_("trainings: {count}").format(count=len(runs)), *counts]
    left = seconds_left(runs, lab.settings.slots)
    if left is not None:
        facts.append(_("about {duration} left").format(duration=roughly(left)))
    done = sum(run.step for run in runs) / max(sum(run.steps for run in runs), 1)
    place.progress(min(1.0, done), text=" · ".join(facts))
    for run in runs:
        if run.error is not None and run.error["code"] != "diverged" and not run.unfinished:
            place.error(f"{run.name}: {problem_text(run.error)}")


def seconds_left(runs: Sequence[Run], slots: int) -> float | None:
    """How long the trainings that have not ended will take, by how fast those of the comparison are; None if unknown."""
    unfinished = [run for run in runs if run.unfinished]
    timed = [run.seconds / run.step for run in runs if run.step]
    if not unfinished or not timed:
        return None
    steps = sum(run.steps - run.step for run in unfinished)
    return steps * sum(timed) / len(timed) / min(slots, len(unfinished))
