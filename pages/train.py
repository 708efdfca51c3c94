"""Train: pick a task or bring sentence pairs, set the model, and start a training that runs beside the app."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import streamlit as st

from lab.runs.laboratory import DEV_FILE, TRAIN_FILE, Laboratory
from lab.runs.presets import preset_names, read_preset
from lab.runs.problems import RunProblem
from lab.runs.store import new_id
from lab.ui.checkpoints import run_title
from lab.ui.estimates import estimate_of, misfit_text, show_estimate
from lab.ui.language import _, language
from lab.ui.own_table import bring_table, rows_html, show_table
from lab.ui.owner import owner
from lab.ui.presets import preset_title
from lab.ui.recipe_form import (
    PROBES,
    FieldError,
    changes,
    form_fields,
    highest_rate,
    read_form,
    summary,
)
from lab.ui.recipe_widgets import dress_train, escaped, show_field, show_fields
from lab.ui.run_view import link
from lab.ui.runs import problem_text, usable_laboratory
from lab.ui.shell import page_start
from lab.ui.train_base import Base, can_clone, clone_base, fields_of, is_clone, own_base, preset_base
from lab.ui.train_form import (
    CLONE_PREFIX,
    LEAVE_OUT,
    NAME,
    OWN,
    REPEAT,
    TABLE,
    Form,
    all_fields,
    current_form,
    note_typed,
    publish_form,
    settle_form,
    widget_key,
)
from transformer.recipe import Recipe

EXAMPLES = 3
MOST_NAME = 80
NAME_WIDTH, REPEAT_WIDTH = 300, 90
BASE_KEY = "train_base"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The form as it stands.

    Attributes:
        form: What the person changed.
        base: What they started from.
        recipe: What it asks for, or None if something is wrong.
        repeat: How often to train.
        changed: Texts that stand for another value than the base's.
        problems: What is wrong, by field.
    """

    form: Form
    base: Base
    recipe: Recipe | None
    repeat: int
    changed: Mapping[str, str]
    problems: Mapping[str, str]

    @property
    def title(self) -> str:
        """What the run is called if the person says nothing."""
        said = f"{self.base.title} · {summary([*self.changed], self.changed)}" if self.changed else ""
        return (said or self.base.title)[:MOST_NAME]

    @property
    def name(self) -> str:
        """What the run shall be called."""
        return self.form.texts.get(NAME, "").strip()[:MOST_NAME] or self.title


def page() -> None:
    """What to learn, the settings that matter, start, all other settings."""
    dress_train()
    st.title(_("Train"))
    lab = usable_laboratory()
    if lab is None:
        return
    form = current_form()
    names = preset_names()
    notes = settle_form(form, [*names, OWN], can_clone=lambda run_id: can_clone(lab, run_id))
    st.markdown(
        _(
            "Choose what to learn, change what you like, start. The training runs beside the app: you may close this page, "
            "and find it again under its address."
        )
    )
    for note in notes:
        st.warning(escaped(note))
    choose_base(lab, form, names)
    base = chosen_base(lab, form)
    if base is None:
        publish_form(form, form.texts)
        return
    sheet = read_sheet(form, base)
    main = [each for each in form_fields().values() if each.main]
    show_fields(main, form, base.texts, sheet.problems, name="main", remarks=remarks(sheet.recipe))
    bar = st.container()
    other_settings(sheet)
    with bar:
        start_bar(lab, sheet)


def choose_base(lab: Laboratory, form: Form, names: list[str]) -> None:
    """The choice of what to learn."""
    titles = {name: title_of(name) for name in names} | {OWN: _("Own data")}
    if form.clone and can_clone(lab, form.clone):
        title = _("Like {name}").format(name=run_title(lab.get(form.clone)))
        titles[f"{CLONE_PREFIX}{form.clone}"] = escaped(title)
    if form.base not in titles:
        form.base = (
            names[0] if names else OWN
        )  # The run was deleted, or the preset's file, while it was shown.
    key = widget_key(form, BASE_KEY, form.base)

    def take_base() -> None:
        form.base = st.session_state[key] or form.base
        note_typed(form, BASE_KEY, form.base)

    st.segmented_control(
        _("What to learn"), [*titles], default=form.base, format_func=titles.__getitem__, required=True, key=key,
        on_change=take_base, label_visibility="collapsed",
    )  # fmt: skip


def title_of(name: str) -> str:
    """What a preset is called, also one that cannot be read."""
    try:
        return preset_title(name, read_preset(name))
    except ValueError:
        return name


def chosen_base(lab: Laboratory, form: Form) -> Base | None:
    """Show what was chosen, and return it; None, with a sentence, if it cannot be used."""
    with st.container(border=True):
        if form.base == OWN:
            return bring_own(lab, form)
        try:
            if is_clone(form.base):
                base = clone_base(lab, lab.get(form.base.removeprefix(CLONE_PREFIX)), form)
            else:
                base = preset_base(form.base, form)
        except ValueError as error:
            st.error(_("These settings cannot be read; choose something else above."))
            st.code(str(error), language=None, wrap_lines=True)
            return None
        words, pairs = st.columns([2, 3], gap="medium")
        if is_clone(form.base):
            with words:
                link(
                    "run",
                    base.title,
                    icon=":material/content_copy:",
                    run=form.base.removeprefix(CLONE_PREFIX),
                )
        words.markdown(base.teaches)
        rows = [(probe.source, probe.target) for probe in base.recipe.probes[:EXAMPLES]]
        if rows:
            pairs.html(rows_html((_("It reads"), _("It should write")), rows))
        return base


def bring_own(lab: Laboratory, form: Form) -> Base:
    """Ask for a table, show it, and return what it starts from."""
    brought = bring_table(lab, form)
    base = own_base(lab, form, brought)
    if brought is not None:
        show_table(brought)
        if brought.table.skipped:
            show_field(all_fields()[LEAVE_OUT], form, base.texts[LEAVE_OUT], "", notes=False)
    return base


def read_sheet(form: Form, base: Base) -> Sheet:
    """Read the form, and put it into the address."""
    texts = {**base.texts, **{key: text for key, text in form.texts.items() if key in base.texts}}
    settings = {key: texts[key] for key in form_fields()}
    files = {"train": TRAIN_FILE, "dev": DEV_FILE} if base.own else {}
    filled = read_form(settings, **files)
    problems = {**filled.problems, **base.problems}
    repeat = 1
    try:
        repeat = all_fields()[REPEAT].read(texts[REPEAT])
    except FieldError as error:
        problems[REPEAT] = str(error)
    changed = changes(settings, {key: base.texts[key] for key in settings})
    beside = {
        key: text
        for key, text in form.texts.items()
        if key not in settings and text and (key in (TABLE, NAME) or text != base.texts.get(key, text))
    }
    publish_form(form, {**changed, **beside})
    recipe = None if problems else filled.recipe
    return Sheet(form=form, base=base, recipe=recipe, repeat=repeat, changed=changed, problems=problems)


def remarks(recipe: Recipe | None) -> dict[str, str]:
    """What else is to be said of fields of the first view."""
    if recipe is None:
        return {}
    training, rate = recipe.training, highest_rate(recipe)
    if training.schedule == "noam" or rate < 0.999 * training.peak:
        return {"training.peak": _("here at most {rate}").format(rate=f"{rate:.2g}")}
    return {}


def start_bar(lab: Laboratory, sheet: Sheet) -> None:
    """What is wrong, or what it will take, and the button that starts it.

    It is filled last: to say what it will take, the data must be read, which may take some seconds the first time.
    """
    known, form = all_fields(), sheet.form
    below = [
        f"{known[key].label}: {escaped(said)}" if key in known else escaped(said)
        for key, said in sheet.problems.items()
        if key not in known or not known[key].main
    ]
    if form.base == OWN and TABLE not in form.texts and OWN in sheet.problems:
        st.info(sheet.problems[OWN])
    elif below:
        st.error("  \n".join(below))
    elif sheet.problems:
        st.error(_("One of the settings above is not right."))
    fits = sheet.recipe is not None and forecast(lab, sheet.recipe, sheet)
    texts, name = form.texts, f"{form.base}/{NAME}"
    key = widget_key(form, name, texts.get(NAME, ""))

    def take_name() -> None:
        texts[NAME] = st.session_state[key]
        note_typed(form, name, texts[NAME])

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            _("Name"), texts.get(NAME, ""), key=key, placeholder=sheet.title, max_chars=MOST_NAME, width=NAME_WIDTH,
            on_change=take_name, autocomplete="off",
        )  # fmt: skip
        with st.container(width=REPEAT_WIDTH):
            show_field(known[REPEAT], form, "1", "", notes=False)
        wanted = st.button(
            _("Start training"), type="primary", icon=":material/play_arrow:", disabled=not fits
        )
        if sheet.changed:
            st.button(_("Undo all changes"), icon=":material/undo:", on_click=undo, args=(form,))
    if wanted and sheet.recipe is not None:
        start(lab, sheet, sheet.recipe)


def forecast(lab: Laboratory, recipe: Recipe, sheet: Sheet) -> bool:
    """Say what it will take, or why it cannot start; returns whether it can."""
    try:
        with st.spinner(_("Reading the data …")):
            estimated = estimate_of(lab, recipe, sheet.base.parts)
    except ValueError as error:
        st.error(escaped(misfit_text(recipe, error)))
        return False
    show_estimate(lab, estimated, sheet.repeat)
    return True


def undo(form: Form) -> None:
    """Give every setting its base's value."""
    for key in form_fields():
        form.texts.pop(key, None)


def start(lab: Laboratory, sheet: Sheet, recipe: Recipe) -> None:
    """Put the trainings into the queue and go where they can be watched."""
    group = new_id() if sheet.repeat > 1 else ""
    started: list[str] = []
    try:
        for number in range(sheet.repeat):
            # Above the highest seed it goes on from 0.
            seed = (recipe.training.seed + number) % 2**63
            each = replace(recipe, training=replace(recipe.training, seed=seed))
            name = (
                sheet.name
                if sheet.repeat == 1
                else _("{name} · seed {seed}").format(name=sheet.name, seed=seed)
            )
            started.append(lab.start(each, name=name, owner=owner(), pairs=sheet.base.parts, group=group))
    except (RunProblem, OSError) as problem:
        disk = _("The training could not be written to the disk: {reason}").format(reason=problem)
        st.error(problem_text(problem) if isinstance(problem, RunProblem) else escaped(disk))
        if started:
            st.info(
                _("{count} of {all} trainings were started; they are in the list of all runs.").format(
                    count=len(started), all=sheet.repeat
                )
            )
        return
    if len(started) == 1:
        st.switch_page("pages/run.py", query_params={"run": started[0], "lang": language()})
    st.switch_page("pages/runs.py", query_params={"runs": ",".join(started), "lang": language()})


def other_settings(sheet: Sheet) -> None:
    """Every setting that is not in the first view, in groups."""
    form, texts, problems = sheet.form, sheet.base.texts, sheet.problems
    groups = fields_of(sheet.base)
    st.subheader(_("All other settings"))
    model, training, vocabulary, data = st.tabs([_("Model"), _("Training"), _("Vocabulary"), _("Data")])
    with model:
        show_fields(groups["model"], form, texts, problems, name="model")
    with training:
        show_fields(groups["training"], form, texts, problems, name="training")
    with vocabulary:
        st.markdown(_("**Of what it reads**"))
        show_fields(groups["source_vocabulary"], form, texts, problems, name="source")
        st.markdown(_("**Of what it writes**"))
        show_fields(groups["target_vocabulary"], form, texts, problems, name="target")
    with data:
        show_fields(groups["data"], form, texts, problems, name="data")
        show_field(all_fields()[PROBES], form, texts[PROBES], problems.get(PROBES, ""))


page_start()
page()
