"""The fields of a training's form on the page: each with the paper's value, and what is wrong with it, below."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import streamlit as st

from lab.ui.language import _
from lab.ui.recipe_form import NO_VALUE, Choice, Field, FieldError, Pairs, Switch
from lab.ui.train_form import Form

# Pixels: a field of the first view, and one of the others, whose names are longer.
NARROW, WIDE = 140, 208


def show_fields(
    shown: Iterable[Field], form: Form, base: Mapping[str, str], problems: Mapping[str, str]
) -> None:
    """Show fields side by side, as many in a row as there is room for.

    Args:
        shown: Which fields.
        form: The form they belong to.
        base: The text that each has if it was not changed.
        problems: What is wrong, by field.
    """
    with st.container(horizontal=True, gap="small"):
        for each in shown:
            show_field(each, form, base[each.key], problems.get(each.key, ""))


def show_field(each: Field, form: Form, base: str, problem: str, *, notes: bool = True) -> None:
    """Show one field, with notes on it below.

    Its text is the form's: a change goes there first, and so is never lost, whatever is shown meanwhile.
    """
    text = form.texts.get(each.key, base)
    key = widget_key(form, each)
    wide = isinstance(each, Pairs)
    width: int | Literal["stretch"] = "stretch" if wide else NARROW if each.main else WIDE
    with st.container(width=width, gap=None):
        settled: str | bool = text == "true" if isinstance(each, Switch) else text
        if st.session_state.get(key) != settled:
            st.session_state[key] = settled
        options: dict[str, Any] = {
            "key": key,
            "help": each.help,
            "on_change": take,
            "args": (form, each, key),
        }
        if isinstance(each, Choice):
            st.selectbox(each.label, [*each.names], format_func=each.names.__getitem__, **options)
        elif isinstance(each, Switch):
            st.segmented_control(each.label, [True, False], format_func=each.shown, required=True, **options)
        elif wide:
            st.text_area(each.label, height=140, **options)
        else:
            st.text_input(each.label, autocomplete="off", **options)
        if problem or notes:
            st.caption(f":red[{escaped(problem)}]" if problem else beside(each, text, base))


def widget_key(form: Form, each: Field) -> str:
    """Name of a field's widget; each base has widgets of its own."""
    return f"{form.base}/{each.key}"


def take(form: Form, each: Field, key: str) -> None:
    """Keep what a person has put into a field."""
    value = st.session_state[key]
    form.texts[each.key] = each.write(value) if isinstance(each, Switch) else value


def beside(each: Field, text: str, base: str) -> str:
    """What stands below a field: the paper's value, the base's if another was chosen, and what is allowed.

    In the first view what is allowed is said once it matters.
    """
    paper = NO_VALUE if each.paper is None else each.shown(each.paper)
    parts = [_("paper: {value}").format(value=paper)]
    if differs(each, text, base):
        parts.append(_("before: {value}").format(value=each.shown(each.read(base))))
    return " · ".join(parts) + (f"  \n{each.allowed}" if each.allowed and not each.main else "")


def differs(each: Field, text: str, base: str) -> bool:
    """Whether a text stands for another value than the base's."""
    try:
        return bool(each.read(text) != each.read(base))
    except FieldError:
        return False


def escaped(text: str) -> str:
    """A text in which Markdown finds nothing."""
    return "".join(
        f"\\{character}" if character in "\\`*_{}[]()#+-.!$~<>|:" else character for character in text
    )
