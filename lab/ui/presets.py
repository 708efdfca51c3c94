"""What the presets are called and what they teach, by name; one without words here is known by its task."""

from lab.ui.language import _
from lab.ui.recipe_form import task_title
from transformer.recipe import Recipe


def preset_title(name: str, recipe: Recipe | None = None) -> str:
    """What a preset is called."""
    if name == "deep":
        return _("200 layers")
    return task_title(name) if recipe is None or name == recipe.data.task else name


def preset_teaches(name: str) -> str:
    """What a preset teaches, in one or two sentences; nothing if that is not known."""
    return {
        "reverse": _(
            "Write digits backwards. In seconds the cross-attention finds the other diagonal: the last digit first."
        ),
        "sort": _(
            "Write digits in rising order. Where to look next depends on what is written, not on the place alone."
        ),
        "addition": _(
            "Add two numbers, last digit first. Each digit needs two places of the source, and the carry from before."
        ),
        "anaphora": _(
            "Put the noun back in place of its pronoun, in Chinese and English. The model must find what “it” refers to."
        ),
        "translation": _(
            "Translate simple English into Chinese, which says when and where before the verb: words change places."
        ),
        "deep": _(
            "Write digits backwards through 100 encoder and 100 decoder layers: pre-norm learns it in about ten minutes. Take "
            "post-norm, and see."
        ),
    }.get(name, "")
