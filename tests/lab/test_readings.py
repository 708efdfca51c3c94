import pytest

from lab.ui.readings import other_direction


@pytest.mark.parametrize(
    ("name", "source", "other"),
    [
        ("en-zh", "她昨天买的那本书很有意思。", "zh-en"),
        ("en-zh", "The book is good.", None),
        ("zh-en", "The book is good.", "en-zh"),
        ("zh-en", "她买书。", None),
        ("zh-en", "我用 Python 写程序。", None),
        ("en-zh", "I love 北京.", None),
        ("en-zh", "爱 Python。", None),
        ("en-zh", "我爱Python。", "zh-en"),
        ("en-zh", "😀 123 !", None),
        ("en-zh", "", None),
        ("reverse", "她昨天", None),
    ],
)
def test_the_other_direction_is_offered_by_script(name, source, other):
    assert other_direction(name, source) == other
