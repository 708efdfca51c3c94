"""Which language is spoken, and what its catalogues say."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.ui import language
from lab.ui.language import _, language_of, merge_catalogs, speaking, translations

HEADER = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'


def catalogue(path, **messages):
    lines = [f'msgid "{message}"\nmsgstr "{translation}"\n' for message, translation in messages.items()]
    path.write_text(HEADER + "\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("zh-CN", "zh"),
        ("zh_TW", "zh"),
        ("ZH-Hant-HK", "zh"),
        ("zh", "zh"),
        ("en-US", "en"),
        ("fr", "en"),
        ("zha", "en"),  # Zhuang, not Chinese
        ("", "en"),
        (None, "en"),
    ],
)
def test_the_language_of_a_browser(locale, expected):
    assert language_of(locale) == expected


def test_without_a_session_english_is_spoken_until_another_is_asked_for():
    assert _("Home") == "Home"
    with speaking("zh"):
        assert (language.language(), _("Home")) == ("zh", "首页")
        with speaking("en"):
            assert _("Home") == "Home"
        assert _("Home") == "首页"
    assert _("Home") == "Home"


def test_a_thread_does_not_hear_the_language_of_another():
    with speaking("zh"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(_, "Home").result() == "Home"


def test_catalogues_are_one_and_what_they_lack_stays_english(tmp_path, monkeypatch):
    folder = tmp_path / "zh" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    catalogue(folder / "one.po", Dog="狗", Cat="猫")
    catalogue(folder / "two.po", Cat="猫", Bird="鸟")
    monkeypatch.setattr(language, "LOCALES", tmp_path)
    # The cache must neither answer from the shipped catalogues nor keep these.
    spoken = translations.__wrapped__("zh")
    assert [spoken.gettext(each) for each in ("Dog", "Cat", "Bird", "Fish")] == ["狗", "猫", "鸟", "Fish"]


def test_two_translations_of_one_message_are_an_error(tmp_path):
    first = catalogue(tmp_path / "a.po", Cat="猫")
    second = catalogue(tmp_path / "b.po", Cat="小猫")
    with pytest.raises(ValueError, match=r"b\.po translates 'Cat' in another way"):
        merge_catalogs([first, second])
