"""Train: pick a task or bring sentence pairs, set the model, and start a training that runs beside the app."""

from collections.abc import Mapping

import streamlit as st

from lab.runs.laboratory import DEV_FILE, TRAIN_FILE, Laboratory
from lab.runs.presets import preset_names, read_preset
from lab.runs.problems import RunProblem
from lab.ui.checkpoints import run_title
from lab.ui.language import _, language
from lab.ui.own_table import bring_table, rows_html, show_table
from lab.ui.owner import owner
from lab.ui.presets import preset_title
from lab.ui.recipe_form import Filled, changes, form_fields, read_form, summary
from lab.ui.recipe_widgets import escaped, show_field, show_fields
from lab.ui.runs import problem_text, usable_laboratory
from lab.ui.shell import page_start
from lab.ui.train_base import (
    Base,
    can_clone,
    clone_base,
    examples_of,
    fields_of,
    is_clone,
    own_base,
    preset_base,
)
from lab.ui.train_form import (
    CLONE_PREFIX,
    LEAVE_OUT,
    NAME,
    OWN,
    TABLE,
    Form,
    all_fields,
    current_form,
    publish_form,
    settle_form,
)
from transformer.recipe import Recipe

MOST_NAME = 80
BASE_KEY, NAME_KEY = "train_base", "train_name"


def page() -> None:
    """What to learn, the settings that matter, start, all other settings."""
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
        st.warning(note)
    choose_base(lab, form, names)
    base = chosen_base(lab, form)
    if base is None:
        publish_form(form, form.texts)
        return
    texts = {**base.texts, **{key: text for key, text in form.texts.items() if key in base.texts}}
    files = {"train": TRAIN_FILE, "dev": DEV_FILE} if base.own else {}
    settings = {key: texts[key] for key in form_fields()}
    filled = read_form(settings, **files)
    changed = changes(settings, {key: base.texts[key] for key in settings})
    publish_form(form, {**changed, **unlisted(form, base)})
    problems = {**filled.problems, **base.problems}
    main = [each for each in form_fields().values() if each.main]
    show_fields(main, form, base.texts, problems)
    start_bar(lab, form, base, filled, changed, problems)
    other_settings(form, base, problems)


def unlisted(form: Form, base: Base) -> dict[str, str]:
    """What the form holds beside the settings of the recipe."""
    own = {key: text for key, text in form.texts.items() if key in (TABLE, NAME) and text}
    split = {key: form.texts[key] for key in form.texts if key not in form_fields() and key in base.texts}
    return {**own, **{key: text for key, text in split.items() if text != base.texts[key]}}


def choose_base(lab: Laboratory, form: Form, names: list[str]) -> None:
    """The choice of what to learn."""
    titles = {name: title_of(name) for name in names} | {OWN: _("Own data")}
    if form.clone and can_clone(lab, form.clone):
        titles[f"{CLONE_PREFIX}{form.clone}"] = _("Like {name}").format(name=run_title(lab.get(form.clone)))
    if st.session_state.get(BASE_KEY) != form.base:
        st.session_state[BASE_KEY] = form.base

    def take_base() -> None:
        form.base = st.session_state[BASE_KEY]

    st.segmented_control(
        _("What to learn"), [*titles], format_func=titles.__getitem__, required=True, key=BASE_KEY,
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
        try:
            if form.base == OWN:
                brought = bring_table(lab, form)
                base = own_base(lab, form, brought)
                if brought is not None:
                    show_table(brought)
                    if brought.table.skipped:
                        show_field(all_fields()[LEAVE_OUT], form, base.texts[LEAVE_OUT], "", notes=False)
                return base
            if is_clone(form.base):
                base = clone_base(lab, lab.get(form.base.removeprefix(CLONE_PREFIX)), form)
            else:
                base = preset_base(form.base, form)
        except ValueError as error:
            st.error(_("These settings cannot be read; choose something else above."))
            st.code(str(error), language=None, wrap_lines=True)
            return None
        show_base(base, form)
        return base


def show_base(base: Base, form: Form) -> None:
    """What is to be learned: a sentence, and examples."""
    words, pairs = st.columns([2, 3], gap="medium")
    words.markdown(f"**{escaped(base.title)}**  \n{base.teaches}")
    rows = [(probe.source, probe.target) for probe in examples_of(base, form)]
    if rows:
        pairs.html(rows_html((_("It reads"), _("It should write")), rows))


def start_bar(
    lab: Laboratory,
    form: Form,
    base: Base,
    filled: Filled,
    changed: Mapping[str, str],
    problems: Mapping[str, str],
) -> None:
    """What it will take, and the button that starts it."""
    known = all_fields()
    elsewhere = [
        f"{known[key].label}: {said}" if key in known else said
        for key, said in problems.items()
        if key not in known or not known[key].main
    ]
    if elsewhere:
        st.error("  \n".join(elsewhere))
    elif problems:
        st.error(_("One of the settings above is not right."))
    title = f"{base.title} · {summary([*changed], changed)}" if changed else base.title
    if st.session_state.get(NAME_KEY) != form.texts.get(NAME, ""):
        st.session_state[NAME_KEY] = form.texts.get(NAME, "")

    def take_name() -> None:
        form.texts[NAME] = st.session_state[NAME_KEY]

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            _("Name"),
            key=NAME_KEY,
            placeholder=title,
            max_chars=MOST_NAME,
            width=300,
            on_change=take_name,
            autocomplete="off",
        )
        wanted = st.button(
            _("Start training"), type="primary", icon=":material/play_arrow:", disabled=bool(problems)
        )
        if changed:
            st.button(_("Undo all changes"), icon=":material/undo:", on_click=undo, args=(form,))
    if wanted and filled.recipe is not None and not problems:
        start(lab, base, filled.recipe, form.texts.get(NAME, "").strip() or title)


def undo(form: Form) -> None:
    """Give every setting its base's value."""
    for key in form_fields():
        form.texts.pop(key, None)


def start(lab: Laboratory, base: Base, recipe: Recipe, name: str) -> None:
    """Put the training into the queue and go to its page."""
    parts = base.parts
    try:
        run_id = lab.start(recipe, name=name[:MOST_NAME], owner=owner(), pairs=parts)
    except RunProblem as problem:
        st.error(problem_text(problem))
        return
    st.switch_page("pages/run.py", query_params={"run": run_id, "lang": language()})


def other_settings(form: Form, base: Base, problems: Mapping[str, str]) -> None:
    """Every setting that is not in the first view, in groups."""
    groups = fields_of(base)
    st.subheader(_("All other settings"))
    model, training, vocabulary, data = st.tabs([_("Model"), _("Training"), _("Vocabulary"), _("Data")])
    with model:
        show_fields(groups["model"], form, base.texts, problems)
    with training:
        show_fields(groups["training"], form, base.texts, problems)
    with vocabulary:
        st.markdown(_("**Of what it reads**"))
        show_fields(groups["source_vocabulary"], form, base.texts, problems)
        st.markdown(_("**Of what it writes**"))
        show_fields(groups["target_vocabulary"], form, base.texts, problems)
    with data:
        show_fields(groups["data"], form, base.texts, problems)
        show_fields(groups["probes"], form, base.texts, problems)


page_start()
page()
