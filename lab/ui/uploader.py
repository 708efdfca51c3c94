"""Streamlit's field for files speaks English only; its visible words are replaced by the person's."""

import json

import streamlit as st

from lab.ui.language import _


def dress_uploader() -> None:
    """Before a field for files: show its button in the person's language; the limit is said in its label."""
    word = json.dumps(_("Choose a file"), ensure_ascii=False)
    st.html(
        "<style>"
        "[data-testid=stFileUploaderDropzoneInstructions] { display: none }"
        "[data-testid=stFileUploaderDropzone] button p { font-size: 0 }"
        f"[data-testid=stFileUploaderDropzone] button p::after {{ content: {word}; font-size: 1rem }}"
        "</style>"
    )
