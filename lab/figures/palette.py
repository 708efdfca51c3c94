"""Colours that mean the same on every page (Okabe and Ito's palette, safe for colour-blind readers)."""

QUERY = "#0072B2"
KEY = "#E69F00"
VALUE = "#009E73"
SCORE = "#CC79A7"

PRE_NORM = "#0072B2"
POST_NORM = "#D55E00"
DEEP_NORM = "#009E73"

TRANSFORMER = "#0072B2"
RNN = "#CC79A7"
CNN = "#E69F00"
