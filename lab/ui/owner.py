"""Who a browser is: a random number in a cookie, so that people find their own runs again. No name, no account."""

import re
import secrets

import streamlit as st

COOKIE = "headlight_owner"
_KEY = "owner"
_ALLOWED = re.compile(r"[0-9a-f]{16}")
_YEAR_SECONDS = 365 * 24 * 3600


def owner() -> str:
    """The owner of what is started in this session."""
    if _KEY not in st.session_state:
        given = str(st.context.cookies.get(COOKIE, ""))
        st.session_state[_KEY] = given if _ALLOWED.fullmatch(given) else secrets.token_hex(8)
    return str(st.session_state[_KEY])


def cookie_script() -> str:
    """JavaScript that makes the browser remember the owner."""
    return f"document.cookie = '{COOKIE}={owner()}; path=/; max-age={_YEAR_SECONDS}; SameSite=Strict'"
