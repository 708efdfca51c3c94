"""The router: sets up the page, the language and the navigation, then runs the page that was asked for."""

import streamlit as st

from lab.ui.language import language_switch
from lab.ui.shell import dress, navigate

page = navigate()
dress()
with st.sidebar:
    language_switch()
page.run()
