"""Labels to texts, and texts to words."""

import re
import unicodedata

# Runs of letters and digits, joined by apostrophes or hyphens inside.
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


def normalize_label(label):
    """Turn a label, as data sets spell it, into text.

    Underscores become spaces, runs of white space become one space, and the ends
    are stripped. Case, punctuation and hyphens stay, for text encoders know what
    they mean. Use it to compare labels of data sets that spell them differently.

    Parameters
    ----------
    label : str
        The label.

    Returns
    -------
    str
        Its text.

    Raises
    ------
    TypeError
        If the label is no string.

    Examples
    --------
    >>> from sklabelaudio.text import normalize_label
    >>> normalize_label("sea_waves")
    'sea waves'
    >>> normalize_label("Chicken, rooster")
    'Chicken, rooster'
    """
    if not isinstance(label, str):
        raise TypeError(
            f"label={label!r} is a {type(label).__name__}: a label is a string"
        )
    return " ".join(label.replace("_", " ").split())


def split_words(text):
    """Split a text into lower-case words; hyphenated ones stay whole.

    Labels taken from folder names may be decomposed (an accent is a character of
    its own), and typeset ones have curly apostrophes; word vectors have neither.
    """
    text = unicodedata.normalize("NFC", text).replace("’", "'")
    return _WORD.findall(text.lower())
