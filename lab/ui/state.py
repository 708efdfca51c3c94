"""Choices that stand in the address, under values that are the same in every language.

Streamlit's own binding writes the label that is shown, which changes with the language. A choice that the address
names wins; where it names none (after a change of page) the session's last choice stays.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

LabelVisibility = Literal["visible", "hidden", "collapsed"]


def segments(
    label: str,
    names: Mapping[str, str],
    *,
    key: str,
    place: DeltaGenerator | None = None,
    label_visibility: LabelVisibility = "visible",
) -> str:
    """Show a segmented control.

    Args:
        label: What it is called.
        names: What each value is called in the person's language, by value; the first is the default.
        key: Name in the address and of the widget.
        place: Where to put it; by default where the script is.
        label_visibility: As Streamlit's.

    Returns:
        The chosen value.
    """
    settle(key, names, next(iter(names)))
    chosen = (place or st).segmented_control(
        label,
        list(names),
        format_func=names.__getitem__,
        required=True,
        key=key,
        label_visibility=label_visibility,
    )
    return publish(key, chosen)


def menu(
    label: str,
    names: Mapping[str, str],
    *,
    key: str,
    default: str | None = None,
    place: DeltaGenerator | None = None,
) -> str:
    """Show a drop-down menu.

    Args:
        label: What it is called.
        names: What each value is called in the person's language, by value.
        key: Name in the address and of the widget.
        default: The value at first; by default the first one.
        place: Where to put it; by default where the script is.

    Returns:
        The chosen value.
    """
    settle(key, names, default or next(iter(names)))
    chosen = (place or st).selectbox(label, list(names), format_func=names.__getitem__, key=key)
    return publish(key, chosen)


def several(
    label: str,
    names: Mapping[str, str],
    *,
    key: str,
    default: Sequence[str],
    place: DeltaGenerator | None = None,
    label_visibility: LabelVisibility = "visible",
) -> list[str]:
    """Show pills of which any number can be chosen; the address holds them with commas between.

    Args:
        label: What they are called.
        names: What each value is called in the person's language, by value.
        key: Name in the address and of the widget.
        default: The values at first.
        place: Where to put them; by default where the script is.
        label_visibility: As Streamlit's.

    Returns:
        The chosen values, in the order of `names`.
    """
    asked = st.query_params.get(key)
    if asked is not None and asked != st.session_state.get(_published(key)):
        st.session_state[key] = [name for name in names if name in asked.split(",")]
    elif key not in st.session_state:
        kept = st.session_state.get(_published(key))
        st.session_state[key] = [
            name for name in names if name in (default if kept is None else kept.split(","))
        ]
    else:
        st.session_state[key] = [name for name in names if name in st.session_state[key]]
    chosen = (place or st).pills(
        label,
        list(names),
        selection_mode="multi",
        format_func=names.__getitem__,
        key=key,
        label_visibility=label_visibility,
    )
    publish(key, ",".join(name for name in names if name in chosen))
    return [name for name in names if name in chosen]


def settle(key: str, names: Mapping[str, str], default: str) -> None:
    """Before its widget: give a choice the value that the address or the session asks for."""
    asked = st.query_params.get(key)
    if asked in names and asked != st.session_state.get(_published(key)):
        st.session_state[key] = asked
    elif st.session_state.get(key) not in names:
        kept = st.session_state.get(_published(key))
        st.session_state[key] = kept if kept in names else default


def publish(key: str, chosen: str | None) -> str:
    """After its widget, which always has a value: put the choice into the address, and return it."""
    assert chosen is not None
    st.session_state[_published(key)] = chosen
    if st.query_params.get(key) != chosen:
        st.query_params[key] = chosen
    return chosen


def _published(key: str) -> str:
    return f"{key}_in_address"
