"""The scripts that draw pictures of attention in the browser."""

from pathlib import Path

COMPONENTS = Path(__file__).resolve().parents[2] / "assets" / "components"


def picture_script(name: str) -> str:
    """The script of a picture in ``assets/components``, with what pictures of attention share before it: one module."""
    shared = COMPONENTS / "attention" / "attention.js"
    own = COMPONENTS / name / f"{name}.js"
    return "\n".join(path.read_text(encoding="utf-8") for path in (shared, own))


def picture_style(name: str) -> str:
    """The style sheet of a picture in ``assets/components``."""
    return (COMPONENTS / name / f"{name}.css").read_text(encoding="utf-8")
