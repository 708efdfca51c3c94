"""The fields of a training's form on the page: each with the paper's value, and what is wrong with it, below."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.ui.language import _
from lab.ui.recipe_form import NO_VALUE, Choice, Field, FieldError, Pairs, Switch
from lab.ui.train_form import Form, note_typed, widget_key

STYLE = Path(__file__).parents[2] / "assets" / "css" / "train.css"


def dress_train() -> None:
    """The style of the form; once a run of the script."""
    st.html(f"<style>{STYLE.read_text(encoding='utf-8')}</style>")


def show_fields(
    shown: Iterable[Field],
    form: Form,
    base: Mapping[str, str],
    problems: Mapping[str, str],
    *,
    name: str,
    remarks: Mapping[str, str] | None = None,
) -> None:
    """Show fields in a grid.

    Args:
        shown: Which fields.
        form: The form they belong to.
        base: The text that each has if it was not changed.
        problems: What is wrong, by field.
        name: What the grid is called; ``main`` for that of the first view.
        remarks: What else to say, by field.
    """
    with st.container(key=f"fields_{name}"):
        for each in shown:
            remark = (remarks or {}).get(each.key, "")
            show_field(each, form, base[each.key], problems.get(each.key, ""), remark)


def show_field(
    each: Field, form: Form, base: str, problem: str, remark: str = "", *, notes: bool = True
) -> None:
    """Show one field, with notes on it below.

    Its text is the form's: a change goes there first, and so is never lost, whatever is shown meanwhile.
    """
    text = form.texts.get(each.key, base)
    name = f"{form.base}/{each.key}"
    key = widget_key(form, name, text)
    options: dict[str, Any] = {
        "key": key, "help": each.help, "on_change": take, "args": (form, form.texts, each, name, key),
    }  # fmt: skip
    with st.container(gap=None):
        if isinstance(each, Choice):
            names = [*each.names]
            place = names.index(text) if text in names else 0
            st.selectbox(each.label, names, place, format_func=each.names.__getitem__, **options)
        elif isinstance(each, Switch):
            st.segmented_control(
                each.label,
                [True, False],
                default=text == "true",
                required=True,
                format_func=each.shown,
                **options,
            )
        elif isinstance(each, Pairs):
            st.text_area(each.label, text, height=140, **options)
        else:
            st.text_input(each.label, text, autocomplete="off", **options)
        if problem:
            st.markdown(f":small[:red[{escaped(problem)}]]")
        elif notes:
            st.caption(beside(each, text, base, remark))


def take(form: Form, texts: dict[str, str], each: Field, name: str, key: str) -> None:
    """Keep what a person has put into a field, with the base that it was shown for."""
    value = st.session_state[key]
    if value is not None:
        texts[each.key] = each.write(value) if isinstance(each, Switch) else value
        note_typed(form, name, texts[each.key])


def beside(each: Field, text: str, base: str, remark: str) -> str:
    """What stands below a field: the paper's value, the base's if another was chosen, and what is allowed.

    In the first view what is allowed is said once it matters.
    """
    paper = NO_VALUE if each.paper is None else each.remark or each.shown(each.paper)
    parts = [_("paper: {value}").format(value=paper)]
    if differs(each, text, base):
        parts.append(_("before: {value}").format(value=each.shown(each.read(base))))
    below = [remark, "" if each.main else each.allowed]
    return "  \n".join([" · ".join(parts), *filter(None, below)])


def differs(each: Field, text: str, base: str) -> bool:
    """Whether a text stands for another value than the base's; long texts are not said again."""
    try:
        return not isinstance(each, Pairs) and bool(each.read(text) != each.read(base))
    except FieldError:
        return False


def escaped(text: str) -> str:
    """A text in which Markdown finds nothing."""
    return "".join(
        f"\\{character}" if character in "\\`*_{}[]()#+-.!$~<>|:" else character for character in text
    )
