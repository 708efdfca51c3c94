"""Presets: recipes that teach something within a minute, one file each; whatever lies in the folder is offered."""

from pathlib import Path

from transformer.recipe import Recipe, read_recipe

PRESETS = Path(__file__).parents[2] / "assets" / "presets"
# The order on the page, from the easiest on; a file that is not named here comes after these.
ORDER = ("reverse", "sort", "addition", "anaphora", "translation")


def preset_names() -> list[str]:
    """Names of the presets that are there."""
    found = sorted(path.stem for path in PRESETS.glob("*.toml"))
    return sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def read_preset(name: str) -> Recipe:
    """The recipe of a preset.

    Raises:
        ValueError: If there is none of this name, or its file is not right.
    """
    if name not in preset_names():
        raise ValueError(f"There is no preset named {name!r}.")
    return read_recipe(PRESETS / f"{name}.toml")
