"""What is wrong with a person's table, in words of their language that say what to do."""

from typing import Any

from lab.runs.own_data import LineProblem
from lab.runs.problems import RunProblem
from lab.ui.language import _


def table_problem_text(problem: RunProblem) -> str:
    """What is wrong with a whole table; an empty text for problems of another kind."""
    details: dict[str, Any] = {
        "limit": 0,
        "line": 0,
        "sources": 0,
        "least": 0,
        "most": 0,
        "dev": 0,
        "excerpt": "",
    }
    details |= problem.details
    if problem.code == "data_binary":
        return binary_text(str(details.get("kind")))
    texts = {
        "data_empty": _("The table is empty: put a source and its target on each line."),
        "data_too_large": _("This is more than {megabytes:g} MB, which is the most. Bring fewer pairs."),
        "data_too_many_pairs": _("There are more than {limit:,} pairs, which is the most. Leave some out."),
        "data_encoding": _("Line {line} is not text in UTF-8. Save the table as “UTF-8” and bring it again."),
        "data_one_column": _(
            "No line has two columns, as in “{excerpt}”. Put a tab or a comma between source and target."
        ),
        "data_too_few_pairs": _(
            "There are {sources} different sources; at least {least} are needed, some to learn from and some to be tested on."
        ),
        "data_dev_size": _(
            "{dev} of {sources} different sources cannot be held out; choose from 1 to {most}."
        ),
    }
    details["megabytes"] = details["limit"] / 1e6
    text = texts.get(problem.code)
    return "" if text is None else text.format(**details)


def binary_text(kind: str) -> str:
    """What is said of a file that is no text."""
    if kind in ("png", "jpeg", "gif"):
        return _("This is a picture. Bring a table of sentence pairs: TSV or CSV, two columns.")
    if kind in ("office", "xls"):
        return _("This is an Office document. Save the sheet as “CSV (UTF-8)” and bring that.")
    if kind in ("zip", "gzip"):
        return _("This is a compressed file. Unpack it, and bring the table in it.")
    if kind == "nul":
        return _(
            "This file holds zero bytes, so it is no text. Bring a table of sentence pairs: TSV or CSV, two columns."
        )
    return _("This is no text. Bring a table of sentence pairs: TSV or CSV, two columns.")


def line_problem_text(problem: LineProblem) -> str:
    """What is wrong with a line, without its number."""
    details: dict[str, Any] = {"characters": 0, "limit": 0, "character": "", **problem.details}
    source = details.get("side") == "source"
    return {
        "line_columns": _("there is only one column"),
        "line_empty_side": _("the source is empty") if source else _("the target is empty"),
        "line_too_long": (
            _("the source has {characters:,} characters; at most {limit:,} are allowed")
            if source
            else _("the target has {characters:,} characters; at most {limit:,} are allowed")
        ),
        "line_character": _("there is a control character, {character}"),
        "line_quote": _("a quotation mark is not closed, or text follows the closing one"),
    }[problem.code].format(**details)
