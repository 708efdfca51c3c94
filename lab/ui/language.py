"""Both languages: which one a session speaks, and its translations.

A message is written in English in the code, `_("Hello {name}").format(name=name)`, and translated by the catalogues
`assets/locales/zh/LC_MESSAGES/*.po`, which are compiled in memory. The language is taken from `?lang=` in the
address, then from what was chosen before in the session, then from the browser.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from gettext import GNUTranslations, NullTranslations
from pathlib import Path

import streamlit as st
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

LOCALES = Path(__file__).parents[2] / "assets" / "locales"
# Each language by its own name, so that whoever needs it can read it.
LANGUAGES = {"zh": "中文", "en": "English"}
PARAMETER = "lang"

_CHOSEN = "language"
_IN_USE = "language_in_use"
_SWITCH = "language_switch"
_forced: ContextVar[str | None] = ContextVar("forced_language", default=None)


def language() -> str:
    """The language of this session: ``en`` or ``zh``."""
    return _forced.get() or st.session_state.get(_IN_USE, "en")


def _(message: str) -> str:
    """Translate a message that is written in English in the code."""
    return translations(language()).gettext(message)


@contextmanager
def speaking(name: str) -> Iterator[None]:
    """Speak ``en`` or ``zh`` whatever the session's language is, also without a session."""
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def settle_language() -> None:
    """Find out the language of this run; before anything is translated.

    A language that was asked for, not merely guessed from the browser, is put back into the address where a change of
    page dropped it, so that the address shows the same to everybody.
    """
    asked = st.query_params.get(PARAMETER)
    if asked in LANGUAGES:
        st.session_state[_CHOSEN] = asked
    chosen = st.session_state.get(_CHOSEN)
    if chosen and PARAMETER not in st.query_params:
        st.query_params[PARAMETER] = chosen
    st.session_state[_IN_USE] = chosen or language_of(st.context.locale)


def language_switch() -> None:
    """Show the switch between the languages; it keeps everything else as it is."""
    st.session_state[_SWITCH] = language()
    st.segmented_control(
        # Whoever looks for the switch may not read the language in use.
        "Language · 语言",
        options=list(LANGUAGES),
        format_func=LANGUAGES.__getitem__,
        required=True,
        key=_SWITCH,
        on_change=_switch,
    )


def _switch() -> None:
    chosen = st.session_state[_SWITCH]
    if chosen in LANGUAGES:
        st.session_state[_CHOSEN] = chosen
        st.query_params[PARAMETER] = chosen


def language_of(locale: str | None) -> str:
    """The language for a browser's locale such as ``zh-CN``: Chinese for Chinese ones, else English."""
    return "zh" if (locale or "").lower().replace("_", "-").split("-")[0] == "zh" else "en"


@cache
def translations(name: str) -> NullTranslations:
    """The translations into a language: every catalogue of it in one.

    Raises:
        ValueError: If two catalogues translate a message differently.
    """
    paths = sorted((LOCALES / name / "LC_MESSAGES").glob("*.po"))
    if not paths:
        return NullTranslations()
    compiled = io.BytesIO()
    write_mo(compiled, merge_catalogs(paths))
    compiled.seek(0)
    return GNUTranslations(compiled)


def merge_catalogs(paths: list[Path]) -> Catalog:
    """Read catalogues into one.

    Raises:
        ValueError: If two translate a message differently.
    """
    merged = Catalog(charset="utf-8")
    for path in paths:
        with path.open("rb") as file:
            catalog = read_po(file, charset="utf-8")
        for message in catalog:
            if not message.id:
                continue
            before = merged.get(message.id)
            if before is not None and before.string != message.string:
                raise ValueError(
                    f"{path.name} translates {message.id!r} in another way than a catalogue before it."
                )
            merged.add(message.id, message.string)
    return merged
