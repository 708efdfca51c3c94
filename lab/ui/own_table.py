"""Sentence pairs of one's own on the page: paste or upload, what was read, and what is wrong line by line."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import streamlit as st

from lab.runs.drafts import keep_draft, read_draft
from lab.runs.laboratory import Laboratory
from lab.runs.own_data import Suggestion, Table, as_text, read_table, split, suggest
from lab.runs.problems import RunProblem
from lab.ui.data_words import line_problem_text, table_problem_text
from lab.ui.language import _
from lab.ui.train_form import LEAVE_OUT, TABLE, Form, note_typed, widget_key
from lab.ui.uploader import dress_uploader
from transformer.data.pairs import Pair
from transformer.data.tasks import task

MOST_PAIRS = 200_000
# A longer text is not shown in the field: the browser would carry it with every change.
MOST_SHOWN_CHARACTERS = 200_000
PREVIEW = 4
SHOWN_PROBLEMS = 8
EXAMPLE_TASK, EXAMPLE_PAIRS = "cause_effect", 400

_TEXT, _UPLOAD, _REFUSED = "own_text", "own_upload", "own_refused"


@dataclass(frozen=True, kw_only=True)
class Brought:
    """A table that a person brought.

    Attributes:
        draft: Its name among the drafts.
        table: What was read.
        suggestion: Settings that suit it, or None if it has no good line.
    """

    draft: str
    table: Table
    suggestion: Suggestion | None

    @property
    def sources(self) -> int:
        """Different sources."""
        return len({pair.source for pair in self.table.pairs})


def bring_table(lab: Laboratory, form: Form) -> Brought | None:
    """Ask for a table; whatever cannot be read is answered in a sentence, and the table before stays.

    Returns:
        The table, or None as long as there is none.
    """
    limit = lab.settings.upload_bytes
    draft = form.texts.get(TABLE, "")
    content = read_draft(lab.settings.data, draft) if draft else None
    paste, upload = st.columns([3, 2])
    with paste:
        text = shown_text(form, content, limit)
        key = widget_key(form, _TEXT, text)
        st.text_area(
            _("One pair a line: source, tab or comma, target"),
            text,
            key=key,
            height=150,
            placeholder=_("How are you?\t你好吗？"),
            on_change=take_text,
            args=(lab, form, key),
        )
    with upload:
        dress_uploader()
        # After each file the field is a new one: the name of a file that was taken need not stand in it.
        key = f"{_UPLOAD}/{st.session_state.setdefault(_UPLOAD, 0)}"
        st.file_uploader(
            _("or a TSV or CSV file of at most {megabytes:g} MB").format(megabytes=limit / 1e6),
            key=key,
            max_upload_size=max(1, limit // 1_000_000),
            on_change=take_upload,
            args=(lab, form, key),
        )
        if content is None:
            st.button(
                _("Try it with an example"),
                icon=":material/table_rows:",
                on_click=take_example,
                args=(lab, form),
            )
        else:
            st.button(_("Take it away"), icon=":material/close:", on_click=drop, args=(form,))
    if _REFUSED in st.session_state:
        st.error(st.session_state[_REFUSED].said)
    if draft and content is None:
        st.info(_("The table of this address is no longer kept here. Paste or upload it again."))
    if content is None:
        return None
    try:
        table, suggestion = read_draft_table(str(lab.settings.data), draft, limit)
    except RunProblem as problem:
        st.error(table_problem_text(problem))
        return None
    return Brought(draft=draft, table=table, suggestion=suggestion)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What was brought and cannot be kept: what is said of it, and the text, if it was pasted."""

    said: str
    text: str | None = None


def shown_text(form: Form, content: bytes | None, limit: int) -> str:
    """What stands in the field: what was pasted last, or the table, unless it is too long for that."""
    refused = st.session_state.get(_REFUSED)
    if refused is not None and refused.text is not None:
        return str(refused.text)
    if content is None:
        return ""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = as_text(content, limit)[0]
        except RunProblem:
            return ""
    fits = len(text) <= MOST_SHOWN_CHARACTERS or form.shown.get(_TEXT, ("", 0))[0] == text
    return text if fits else ""


def take_text(lab: Laboratory, form: Form, key: str) -> None:
    """Keep what was pasted, whatever it is; what is wrong with it is said when it is read."""
    text = st.session_state[key]
    note_typed(form, _TEXT, text)
    drop(form)
    if not text.strip():
        return
    content = text.encode("utf-8", "replace")
    limit = lab.settings.upload_bytes
    if len(content) <= limit:
        take_content(lab, form, content)
    else:
        problem = RunProblem("data_too_large", "The table is too large.", limit=limit)
        st.session_state[_REFUSED] = Refused(said=table_problem_text(problem), text=text)


def take_upload(lab: Laboratory, form: Form, key: str) -> None:
    """Keep a file that was uploaded, if it is a table; if not, say why, and leave everything as it was."""
    file = st.session_state.get(key)
    if file is None:
        return
    st.session_state[_UPLOAD] += 1
    content, limit = file.getvalue(), lab.settings.upload_bytes
    try:
        read_table(content, name="upload", limit_bytes=limit, limit_pairs=MOST_PAIRS)
    except RunProblem as problem:
        st.session_state[_REFUSED] = Refused(said=table_problem_text(problem))
        return
    take_content(lab, form, content)


def take_content(lab: Laboratory, form: Form, content: bytes) -> None:
    """Keep a table, and make it that of the form."""
    st.session_state.pop(_REFUSED, None)
    try:
        form.texts[TABLE] = keep_draft(lab.settings.data, content)
    except OSError as error:
        said = _("The table could not be written to the disk: {reason}").format(reason=error.strerror)
        st.session_state[_REFUSED] = Refused(said=said, text=form.shown.get(_TEXT, ("", 0))[0])
        return
    # Another table has other bad lines.
    form.texts.pop(LEAVE_OUT, None)


def take_example(lab: Laboratory, form: Form) -> None:
    """Take a table of examples, written by one of the generators."""
    pairs = task(EXAMPLE_TASK).examples(1, EXAMPLE_PAIRS)
    text = "".join(f"{pair.source}\t{pair.target}\n" for pair in pairs)
    take_content(lab, form, text.encode())


def drop(form: Form) -> None:
    """Forget the table."""
    st.session_state.pop(_REFUSED, None)
    for key in (TABLE, LEAVE_OUT):
        form.texts.pop(key, None)


@st.cache_data(max_entries=16, show_spinner=False)
def read_draft_table(data: str, draft: str, limit: int) -> tuple[Table, Suggestion | None]:
    """The table of a draft, read once for everybody.

    Raises:
        RunProblem: If it is none.
    """
    content = read_draft(Path(data), draft)
    if content is None:
        raise RunProblem("data_empty", "The table is empty.")
    table = read_table(content, name="The table", limit_bytes=limit, limit_pairs=MOST_PAIRS)
    return table, suggest(table.pairs) if table.pairs else None


@st.cache_data(max_entries=16, show_spinner=False)
def split_draft(
    data: str, draft: str, limit: int, dev: int | None, seed: int
) -> tuple[list[Pair], list[Pair]]:
    """Both parts of the table of a draft.

    Raises:
        RunProblem: If it cannot be split so.
    """
    return split(read_draft_table(data, draft, limit)[0].pairs, dev=dev, seed=seed)


def show_table(brought: Brought) -> None:
    """Say what was read, show the first pairs, and what is wrong with which line."""
    table = brought.table
    separator = {"\t": _("tabs"), ",": _("commas"), ";": _("semicolons")}[table.delimiter]
    parts = [
        _("**{count:,} pairs**, columns separated by {separator}").format(
            count=len(table.pairs), separator=separator
        )
    ]
    if table.encoding != "utf-8":
        parts.append(_("read as {encoding}").format(encoding=table.encoding.upper()))
    if table.header is not None:
        parts.append(_("the first line names the columns"))
    if table.columns > 2:
        parts.append(_("columns after the second are ignored"))
    if table.duplicates:
        parts.append(_("{count:,} pairs stand there more than once").format(count=table.duplicates))
    st.markdown(" · ".join(parts))
    if table.pairs:
        rows = [
            (str(line), pair.source, pair.target)
            for line, pair in zip(table.lines[:PREVIEW], table.pairs[:PREVIEW], strict=True)
        ]
        st.html(rows_html((_("Line"), _("It reads"), _("It should write")), rows))
    if table.problems:
        show_problems(table)


def show_problems(table: Table) -> None:
    """The bad lines, by number."""
    said = [
        _("Line {line}: {problem} — “{excerpt}”").format(
            line=f"{each.line:,}", problem=line_problem_text(each), excerpt=each.details["excerpt"]
        )
        for each in table.problems[:SHOWN_PROBLEMS]
    ]
    rest = table.skipped - len(said)
    if rest:
        said.append(_("… and {count:,} more").format(count=rest))
    items = "".join(f"<li>{escape(each)}</li>" for each in said)
    st.error(
        _("**{count:,} lines cannot be used.** Mend them above, or leave them out.").format(
            count=table.skipped
        )
    )
    st.html(f"<ul class='problems'>{items}</ul>")


def rows_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table whose texts are shown as they are."""
    heads = "".join(f"<th scope='col'>{escape(each)}</th>" for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table class='rows'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
