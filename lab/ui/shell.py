"""What surrounds every page: the list of pages, the style, and the guard of deep links."""

import gc
from dataclasses import dataclass
from html import escape
from pathlib import Path

import streamlit as st

from lab.ui.language import _, language, settle_language
from lab.ui.owner import cookie_script

ROOT = Path(__file__).parents[2]
STYLES = ROOT / "assets" / "css"
FAVICON = ROOT / "assets" / "favicon.svg"
_ROUTED = "routed"


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """A page.

    Attributes:
        name: Name of its file in `pages/`, and its path in the address.
        title: What the navigation calls it.
        icon: A Material symbol.
    """

    name: str
    title: str
    icon: str


def page_files() -> list[PageFile]:
    """The pages, in the order of the navigation; the first one opens the app."""
    return [
        PageFile(name="home", title=_("Home"), icon=":material/home:"),
        PageFile(name="attention_heads", title=_("Attention heads"), icon=":material/grid_view:"),
        PageFile(name="positional_encoding", title=_("Positional encoding"), icon=":material/waves:"),
        PageFile(name="add_norm", title=_("Add & Norm"), icon=":material/balance:"),
        PageFile(name="train", title=_("Train"), icon=":material/model_training:"),
        PageFile(name="run", title=_("Training run"), icon=":material/monitoring:"),
        PageFile(name="runs", title=_("All runs"), icon=":material/table_rows:"),
        PageFile(name="time_machine", title=_("Time machine"), icon=":material/history:"),
    ]


def page_path(page: PageFile) -> Path:
    """Where the script of a page lies."""
    return ROOT / "pages" / f"{page.name}.py"


def navigate() -> st.Page:
    """Settle the language, show the navigation, and return the page that the address asks for."""
    settle_language()
    # A file of our own: Streamlit would fetch a Material symbol for the browser's tab from the internet.
    st.set_page_config(
        page_title=_("Headlight"), page_icon=str(FAVICON), layout="wide", initial_sidebar_state=256
    )
    opening, *others = page_files()
    # The page that opens the app stands at the root, whatever path it is given; the name of its file leads there.
    root = st.Page(page_path(opening), title=opening.title, icon=opening.icon, url_path="root", default=True)

    def go_to_root() -> None:
        st.switch_page(root, query_params=st.query_params.to_dict())

    alias = st.Page(go_to_root, title=opening.title, url_path=opening.name, visibility="hidden")
    pages = [
        st.Page(page_path(page), title=page.title, icon=page.icon, url_path=page.name) for page in others
    ]
    st.session_state[_ROUTED] = True
    return st.navigation([root, *pages, alias])


def page_start() -> None:
    """Make sure that the router runs around this page; the first call of every page.

    Streamlit takes the folder `pages/` for pages of its older kind until one session has called `st.navigation`. The
    first request after the start, if it asks for a page, therefore runs the page's file alone: then this calls
    `st.navigation` and runs everything again.
    """
    if _ROUTED not in st.session_state:
        navigate()
        st.rerun()


def dress() -> None:
    """Style the app, and tell the browser which language it reads and who it is; once a run."""
    freeze_imports()
    tag = {"zh": "zh-CN", "en": "en"}[language()]
    names = ("shell", "dark") if st.context.theme.type == "dark" else ("shell",)
    style = "".join((STYLES / f"{name}.css").read_text(encoding="utf-8") for name in names)
    st.html(
        f"<style>{style}</style>"
        f"<script>document.documentElement.lang = '{escape(tag)}'; {cookie_script()}</script>",
        unsafe_allow_javascript=True,
    )


@st.cache_resource(show_spinner=False)
def freeze_imports() -> None:
    """Take what is imported out of what Python searches for garbage: a search of it takes 0.15 s, and finds nothing."""
    gc.collect()
    gc.freeze()
