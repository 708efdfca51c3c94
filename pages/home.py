"""Home: what this is, a picture that moves, and three examples one click away."""

import streamlit as st

from lab.ui.language import _
from lab.ui.shell import page_start

page_start()
st.title(_("Headlight"))
