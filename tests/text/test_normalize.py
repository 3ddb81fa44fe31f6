import pytest

from sklabelaudio.text import normalize_label
from sklabelaudio.text._normalize import split_words


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("sea_waves", "sea waves"),
        ("Chicken, rooster", "Chicken, rooster"),
        ("  street \t music\n", "street music"),
        ("__air__conditioner_", "air conditioner"),
        ("Tick-tock", "Tick-tock"),
        ("_", ""),
    ],
)
def test_normalize_label(label, text):
    assert normalize_label(label) == text
    assert normalize_label(text) == text


def test_normalize_label_refuses_what_is_no_string():
    with pytest.raises(TypeError, match=r"label=3 is a int"):
        normalize_label(3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Chicken, rooster", ["chicken", "rooster"]),
        ("sea_waves", ["sea", "waves"]),
        ("Children's (loud) playing!", ["children's", "loud", "playing"]),
        ("children’s", ["children's"]),
        ("'quoted' dogs'", ["quoted", "dogs"]),
        ("Tick-tock - 808s", ["tick-tock", "808s"]),
        ("E\u0301tude", ["\u00e9tude"]),
        ("?!", []),
    ],
)
def test_split_words(text, words):
    assert split_words(text) == words
