"""The scripts and styles that draw pictures of attention in the browser."""

from pathlib import Path

COMPONENTS = Path(__file__).resolve().parents[2] / "assets" / "components"
SHARED = "attention"


def picture_script(name: str) -> str:
    """The script of a picture in ``assets/components``, with what pictures of attention share before it: one module."""
    return _joined(name, "js")


def picture_style(name: str) -> str:
    """The style sheet of a picture in ``assets/components``, with what pictures of attention share before it."""
    return _joined(name, "css")


def _joined(name: str, suffix: str) -> str:
    paths = (COMPONENTS / each / f"{each}.{suffix}" for each in (SHARED, name))
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)
