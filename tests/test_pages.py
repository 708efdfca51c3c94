"""Every page runs in both languages and keeps its promise of a title in the person's language."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))
TITLES = {
    ("home", "en"): "See what a Transformer attends to",
    ("home", "zh"): "看看 Transformer 在注意什么",
    ("attention_heads", "en"): "Attention heads",
    ("attention_heads", "zh"): "注意力头",
    ("positional_encoding", "en"): "Positional encoding",
    ("positional_encoding", "zh"): "位置编码",
    ("add_norm", "en"): "Add & Norm",
    ("add_norm", "zh"): "残差与归一化",
    ("run", "en"): "Training run",
    ("run", "zh"): "训练过程",
    ("runs", "en"): "All runs",
    ("runs", "zh"): "所有训练任务",
    ("train", "en"): "Train",
    ("train", "zh"): "训练",
    ("time_machine", "en"): "Time machine",
    ("time_machine", "zh"): "时光机",
}


def run(page: str, **query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    if page != "home":
        app.switch_page(f"pages/{page}.py").run()
    assert not app.exception, app.exception
    return app


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_in_both_languages(page, language):
    app = run(page, lang=language)
    assert [title.value for title in app.title] == [TITLES[page, language]]


def test_what_the_address_asks_for_is_what_a_page_shows():
    app = run(
        "attention_heads", lang="zh", checkpoint="reverse", source="5 6 7 8", beam="4", target="8 7 6 5"
    )
    assert app.selectbox(key="checkpoint").value == "reverse"
    assert app.text_input(key="source").value == "5 6 7 8"
    assert app.text_input(key="target").value == "8 7 6 5"


@pytest.mark.parametrize("checkpoint", ["reverse", "sort", "anaphora", "en-zh", "zh-en"])
def test_every_checkpoint_opens_with_an_example(checkpoint):
    app = run("attention_heads", lang="en", checkpoint=checkpoint)
    assert app.selectbox(key="checkpoint").value == checkpoint
    assert app.text_input(key="source").value
    assert not app.error


def test_an_unknown_checkpoint_and_language_in_the_address_are_passed_over():
    app = run("attention_heads", lang="fr", checkpoint="../../etc")
    assert app.selectbox(key="checkpoint").value == "en-zh"


@pytest.mark.parametrize(
    ("source", "answer"),
    [("word " * 500, "at most 128"), ("", "The source is empty"), (" \t ", "The source is empty")],
)
def test_a_source_that_cannot_be_read_is_answered_in_a_sentence(source, answer):
    app = run("attention_heads", lang="en")
    app.text_input(key="source").set_value(source).run()
    assert not app.exception
    assert any(answer in message.value for message in [*app.error, *app.info])


def test_a_damaged_checkpoint_is_answered_in_a_sentence(tmp_path, monkeypatch):
    from lab.ui import checkpoints

    damaged = tmp_path / "reverse"
    damaged.mkdir()
    for path in (checkpoints.CHECKPOINTS / "reverse").iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "model.safetensors").write_bytes(b"not weights")
    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    for page in ("home", "attention_heads"):
        app = run(page, lang="zh")
        assert any("无法加载" in message.value for message in app.error)


def test_without_any_checkpoint_the_pages_say_how_to_make_one(tmp_path, monkeypatch):
    from lab.ui import checkpoints

    monkeypatch.setattr(checkpoints, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(checkpoints, "finished_runs", list)
    assert run("home", lang="en").title
    app = run("attention_heads", lang="en")
    assert any("make checkpoint-reverse" in message.value for message in app.info)
    run("positional_encoding", lang="en")
