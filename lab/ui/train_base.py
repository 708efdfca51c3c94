"""What a training's form starts from: a preset, a table of one's own, or a run that is cloned."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st

from lab.runs.laboratory import DEV_FILE, TRAIN_FILE, Laboratory
from lab.runs.own_data import Suggestion, suggested_dev
from lab.runs.presets import read_preset
from lab.runs.probes import chosen_probes
from lab.runs.problems import RunProblem
from lab.runs.store import Run
from lab.ui.checkpoints import run_title
from lab.ui.data_words import table_problem_text
from lab.ui.language import _
from lab.ui.own_table import Brought, split_draft
from lab.ui.presets import preset_teaches, preset_title
from lab.ui.recipe_form import Field, FieldError, form_fields, texts_of
from lab.ui.train_form import CLONE_PREFIX, DEV, LEAVE_OUT, OWN, REPEAT, SPLIT_SEED, Form, all_fields
from transformer.data.pairs import Pair, read_pairs
from transformer.data.tasks import TASKS, task
from transformer.recipe import DataConfig, Recipe, VocabularyConfig
from transformer.train import TrainingConfig

Parts = tuple[list[Pair], list[Pair]]

PICTURES = "training.probe_count"
# Among so many examples of a task those to show are chosen.
CANDIDATES = 50


@dataclass(frozen=True, kw_only=True)
class Base:
    """What the form starts from.

    Attributes:
        recipe: Every setting's value.
        texts: The same as the texts of the fields, with those of a person's own table.
        title: What it is called.
        teaches: What it teaches, or nothing.
        parts: Pairs to train and to evaluate on, for data that no task draws.
        problems: What stands in the way of a start, by field; under `OWN` what belongs to the table.
    """

    recipe: Recipe
    texts: Mapping[str, str]
    title: str
    teaches: str = ""
    parts: Parts | None = None
    problems: Mapping[str, str]

    @property
    def own(self) -> bool:
        """Whether its pairs are a person's own."""
        return not self.recipe.data.task


def preset_base(name: str, form: Form) -> Base:
    """A preset.

    Raises:
        ValueError: If its file is not right.
    """
    recipe = with_probes(read_preset(name), form)
    return Base(
        recipe=recipe,
        texts=texts_for(recipe),
        title=preset_title(name, recipe),
        teaches=preset_teaches(name),
        problems={},
    )


def texts_for(recipe: Recipe) -> dict[str, str]:
    """The text of every field that all bases have."""
    return {**texts_of(recipe), REPEAT: "1"}


def with_probes(recipe: Recipe, form: Form) -> Recipe:
    """A recipe of a task with the probes of the task that the form names, which may be another."""
    named = form.texts.get("data.task", recipe.data.task)
    if recipe.probes and named == recipe.data.task:
        return recipe
    examples = task(named if named in TASKS else recipe.data.task).examples(recipe.data.task_seed, CANDIDATES)
    pairs = [Pair(source=each.source, target=each.target) for each in examples]
    return replace(recipe, probes=chosen_probes(pairs, longest=recipe.data.max_length))


def own_base(lab: Laboratory, form: Form, brought: Brought | None) -> Base:
    """A person's own table, with settings that suit it."""
    sources = brought.sources if brought is not None else 0
    own = {DEV: str(suggested_dev(sources)) if sources else "", SPLIT_SEED: "1", LEAVE_OUT: "false"}
    suggestion = brought.suggestion if brought is not None else None
    recipe = own_recipe(suggestion)
    parts, problems = None, {OWN: _("There is no table yet: paste one above, or upload it.")}
    if brought is not None:
        parts, problems = split_table(lab, form, brought, own)
    if parts is not None:
        recipe = replace(recipe, probes=chosen_probes(parts[1], longest=recipe.data.max_length))
    return Base(
        recipe=recipe,
        texts={**texts_for(recipe), **own},
        title=_("Own data"),
        parts=parts,
        problems=problems,
    )


def split_table(
    lab: Laboratory, form: Form, brought: Brought, own: Mapping[str, str]
) -> tuple[Parts | None, dict[str, str]]:
    """Both parts of a table, or what stands in the way."""
    known = all_fields()
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for key in (DEV, SPLIT_SEED, LEAVE_OUT):
        text = form.texts.get(key, own[key])
        if key == DEV and not text:
            continue  # There is no source at all, which is said below.
        try:
            values[key] = known[key].read(text)
        except FieldError as error:
            problems[key] = str(error)
    if brought.table.skipped and not values.get(LEAVE_OUT):
        problems[OWN] = _(
            "{count:,} lines of the table cannot be used: mend them, or leave them out."
        ).format(count=brought.table.skipped)
    if DEV in problems or SPLIT_SEED in problems:
        return None, problems
    try:
        parts = split_draft(
            str(lab.settings.data),
            brought.draft,
            lab.settings.upload_bytes,
            values.get(DEV),
            values[SPLIT_SEED],
        )
    except RunProblem as problem:
        problems[DEV if problem.code == "data_dev_size" else OWN] = table_problem_text(problem)
        return None, problems
    return parts, problems


def own_recipe(suggestion: Suggestion | None) -> Recipe:
    """A recipe for pairs of unknown kind: a small model, which learns something in minutes."""
    return Recipe(
        data=DataConfig(
            train=TRAIN_FILE,
            dev=DEV_FILE,
            max_length=64 if suggestion is None else suggestion.max_length,
        ),
        source_vocabulary=VocabularyConfig()
        if suggestion is None
        else VocabularyConfig(level=suggestion.source_level, size=suggestion.source_size),
        target_vocabulary=VocabularyConfig()
        if suggestion is None
        else VocabularyConfig(level=suggestion.target_level, size=suggestion.target_size),
        model={
            "d_model": 128, "num_heads": 4, "d_ff": 256, "encoder_layers": 2, "decoder_layers": 2, "norm": "pre",
            "max_length": 256,
        },
        training=TrainingConfig(
            steps=1000, batch_tokens=2000, schedule="linear", peak=2e-3, warmup_steps=100, clip_norm=1.0,
            evaluate_every=100, probe_count=24, layers_every=20,
        ),
    )  # fmt: skip


def clone_base(lab: Laboratory, run: Run, form: Form) -> Base:
    """The settings of a run, and its pairs where they are its own.

    Raises:
        ValueError: If its settings cannot be used any more.
    """
    recipe = Recipe.from_dict(run.spec)
    title = _("Like {name}").format(name=run_title(run))
    if recipe.data.task:
        recipe = with_probes(recipe, form)
        return Base(recipe=recipe, texts=texts_for(recipe), title=title, problems={})
    texts = {**texts_for(recipe), DEV: "", SPLIT_SEED: "", LEAVE_OUT: "false"}
    folder = lab.folder(run.id) / "data"
    try:
        parts = run_pairs(str(folder), recipe.data.train, recipe.data.dev)
    except ValueError:
        problems = {
            OWN: _(
                "The sentence pairs of this run are not here. Bring them as a table: choose “{own}”."
            ).format(own=_("Own data"))
        }
        return Base(recipe=recipe, texts=texts, title=title, problems=problems)
    return Base(recipe=recipe, texts=texts, title=title, parts=parts, problems={})


@st.cache_data(max_entries=8, show_spinner=False)
def run_pairs(folder: str, train: str, dev: str) -> Parts:
    """The pairs that a run was trained and evaluated on.

    Raises:
        ValueError: If they are not there.
    """
    return read_pairs(Path(folder) / train), read_pairs(Path(folder) / dev)


def can_clone(lab: Laboratory, run_id: str) -> bool:
    """Whether there is a training of this ID."""
    try:
        return lab.get(run_id).kind == "training"
    except RunProblem:
        return False


def fields_of(base: Base) -> dict[str, list[Field]]:
    """The fields that are not in the first view, by group, as far as they have a meaning for these data."""
    known = all_fields()
    cloned = base.texts.get(DEV) == "" and base.parts is not None
    hidden = (
        {"data.task", "data.task_train", "data.task_dev", "data.task_seed"} if base.own else {"data.swap"}
    )
    own = () if cloned or not base.own else (DEV, SPLIT_SEED)
    rest = [
        each for key, each in known.items() if not each.main and key not in hidden and key in form_fields()
    ]
    return {
        "model": [each for each in rest if each.section == "model"],
        "training": [each for each in rest if each.section == "training" and each.key != PICTURES],
        "source_vocabulary": [each for each in rest if each.section == "source_vocabulary"],
        "target_vocabulary": [each for each in rest if each.section == "target_vocabulary"],
        "data": [
            *(known[key] for key in own),
            *(each for each in rest if each.section == "data"),
            known[PICTURES],
        ],
    }


def is_clone(name: str) -> bool:
    """Whether a base is a run."""
    return name.startswith(CLONE_PREFIX)
