"""What the variants of norm and residual connection are called, how they are coloured and written, in both languages."""

from html import escape

from lab.figures.curves import RUNS
from lab.figures.palette import DEEP_NORM, POST_NORM, PRE_NORM
from lab.ui.language import _

# Where a part is taken away: colours that mean nothing elsewhere, and dashed where it is the residual connection.
COLOURS = {
    "pre": PRE_NORM,
    "post": POST_NORM,
    "deepnorm": DEEP_NORM,
    "none": RUNS[0],
    "pre-alone": RUNS[4],
    "post-alone": RUNS[5],
    "none-alone": RUNS[3],
}
EQUATIONS = {
    "post": r"\mathrm{LN}(x+f(x))",
    "pre": r"x+f(\mathrm{LN}(x))",
    "deepnorm": r"\mathrm{LN}(\alpha x+f(x))",
    "none": r"x+f(x)",
    "post-alone": r"\mathrm{LN}(f(x))",
    "pre-alone": r"f(\mathrm{LN}(x))",
    "none-alone": r"f(x)",
}


def variant_title(variant: str) -> str:
    """What a variant is called."""
    return {
        "pre": _("pre-norm"),
        "post": _("post-norm"),
        "deepnorm": "DeepNorm",
        "none": _("without Norm"),
        "pre-alone": _("pre-norm without Add"),
        "post-alone": _("post-norm without Add"),
        "none-alone": _("without both"),
    }[variant]


def is_dashed(variant: str) -> bool:
    """Whether the lines of a variant are dashed."""
    return variant.endswith("-alone")


def equation(variant: str) -> str:
    """The equation of a variant, in its colour, for KaTeX."""
    return rf"\textcolor{{{COLOURS[variant]}}}{{{EQUATIONS[variant]}}}"


def coloured(variant: str, text: str = "") -> str:
    """The name of a variant, or another text, in its colour, as HTML."""
    return f"<span class='norm-name' style='color:{COLOURS[variant]}'>{escape(text or variant_title(variant))}</span>"


def layers_title(measure: str) -> str:
    """What is measured of each layer, in a choice."""
    return {
        "layer_gradients": _("Gradient"),
        "layer_streams": _("Residual stream"),
        "layer_updates": _("Movement"),
        "layer_weight_updates": _("Weight updates"),
    }[measure]


def layers_unit(measure: str) -> str:
    """What a number of a layer is."""
    return {
        "layer_gradients": _("gradient norm"),
        "layer_streams": _("size of the stream (root mean square)"),
        "layer_updates": _("how far the layer moves the stream, relative"),
        "layer_weight_updates": _("how far a step moves the weights, relative"),
    }[measure]


def layers_note(measure: str) -> str:
    """What to look for."""
    return {
        "layer_gradients": _(
            "Look along a column: one colour means that the gradient is as great in all layers; where the colour changes, "
            "some layers are taught much harder than others. Grey: a number that overflowed."
        ),
        "layer_streams": _(
            "Pre-norm only ever adds to the stream, so it grows from layer to layer. Post-norm and DeepNorm bring it "
            "back to one size after every sub-layer."
        ),
        "layer_updates": _(
            "What a layer adds, beside what is already there: residual connections let layers learn increments. Under "
            "post-norm the normalisation itself belongs to the movement."
        ),
        "layer_weight_updates": _(
            "How far one step of Adam moves the weights of a layer, beside their size. It follows the learning rate, and "
            "tells of layers that are thrown about."
        ),
    }[measure]
