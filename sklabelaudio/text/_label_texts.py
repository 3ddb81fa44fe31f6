"""What a text model is asked for each label: checks, descriptions and prompts."""

import string
import warnings
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from ._normalize import normalize_label, split_words


class LabelText(NamedTuple):
    """A label and the texts that stand for it.

    Attributes
    ----------
    label : str
        The label, as it was given.
    subject : str
        The label, or its description where there is one.
    texts : tuple of str
        The normalised subject in each of the templates, or alone without them.
    """

    label: str
    subject: str
    texts: tuple


def check_labels(X):
    """Return the labels as a list of strings, or say what is wrong with them."""
    if isinstance(X, (str, bytes)):
        raise TypeError(f"X={X!r} is one label: pass a list of labels, [{X!r}]")
    if getattr(X, "ndim", 1) != 1:
        raise ValueError(
            f"X has {X.ndim} dimensions, labels have one: pass one column of it"
        )
    if isinstance(X, (Mapping, set, frozenset)) or not hasattr(X, "__len__"):
        raise TypeError(f"X is a {type(X).__name__}: pass a list of labels")
    labels = list(X)
    if not labels:
        raise ValueError("X is empty: it needs at least one label")
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise TypeError(
                f"X[{index}]={label!r} is a {type(label).__name__}, a label is a "
                "string: drop missing labels, and spell out the others"
            )
        if not normalize_label(label):
            raise ValueError(f"X[{index}]={label!r} is blank: name it or drop it")
    return [str(label) for label in labels]


def check_prompt(prompt):
    """Return the templates of a prompt, None for no prompt."""
    if prompt is None:
        return None
    templates = [prompt] if isinstance(prompt, str) else list(prompt)
    if not templates:
        raise ValueError(f"prompt={prompt!r} has no template: pass None for no prompt")
    for template in templates:
        _check_template(template)
    return templates


def _check_template(template):
    mend = "write {label}, and nothing else in braces, where the label goes"
    if not isinstance(template, str):
        raise TypeError(
            f"prompt has {template!r}, a {type(template).__name__}: a template is a "
            "string"
        )
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        message = f"prompt={template!r} is no template ({error}): {mend}"
        raise ValueError(message) from error
    fields = [(name, spec, how) for _, name, spec, how in parts if name is not None]
    if not fields:
        raise ValueError(f"prompt={template!r} has no {{label}}: {mend}")
    for name, spec, how in fields:
        if (name, spec, how) != ("label", "", None):
            field = name + (f"!{how}" if how else "") + (f":{spec}" if spec else "")
            raise ValueError(f"prompt={template!r} has the field {{{field}}}: {mend}")


def build_label_texts(labels, *, description, templates):
    """Return the `LabelText` of each label."""
    subjects = _describe(labels, description)
    filling = [normalize_label(subject) for subject in subjects]
    if templates is None:
        texts = [(text,) for text in filling]
    else:
        _warn_if_doubled(labels, filling, templates)
        texts = [tuple(t.format(label=text) for t in templates) for text in filling]
    return [LabelText(*parts) for parts in zip(labels, subjects, texts, strict=True)]


def _describe(labels, description):
    if description is None:
        return labels
    if isinstance(description, Mapping):
        missing = [label for label in labels if label not in description]
        if missing:
            raise ValueError(
                f"description has no text for {', '.join(map(repr, missing))}: add "
                "it, or None where the label itself is to be used"
            )
        description = description.__getitem__
    return [_check_description(label, description(label)) for label in labels]


def _check_description(label, text):
    if text is None:
        return label
    if not isinstance(text, str):
        raise TypeError(
            f"description gives {text!r}, a {type(text).__name__}, for {label!r}: give "
            "a string, or None where the label itself is to be used"
        )
    if not normalize_label(text):
        raise ValueError(
            f"description gives {text!r} for {label!r}: give a text, or None where the "
            "label itself is to be used"
        )
    return text


def _warn_if_doubled(labels, filling, templates):
    """Warn of texts such as "the sound of a the sound of a dog"."""
    surroundings = {
        template: [split_words(part) for part in template.split("{label}")]
        for template in templates
    }
    doubled = {
        label: template
        for label, text in zip(labels, filling, strict=True)
        for template, parts in surroundings.items()
        if _is_doubled(split_words(text), parts)
    }
    if doubled:
        label, template = next(iter(doubled.items()))
        warnings.warn(
            f"{len(doubled)} label(s) already have the words of the prompt, such as "
            f"{label!r} in prompt={template!r}: give bare labels, or no prompt",
            UserWarning,
            stacklevel=5,
        )


def _is_doubled(words, parts):
    """Whether the words repeat those before or after them in a template.

    One word in common where they meet may be chance ("a" and "A capella"), unless
    it is the template's only one.
    """
    return any(
        _meet_in_same_words(before, words, min(2, len(before)))
        or _meet_in_same_words(words, after, min(2, len(after)))
        for before, after in pairwise(parts)
    ) or any(len(part) > 1 and _contains(words, part) for part in parts)


def _meet_in_same_words(left, right, n_least):
    n_most = min(len(left), len(right))
    return any(left[-n:] == right[:n] for n in range(max(n_least, 1), n_most + 1))


def _contains(words, part):
    return f" {' '.join(part)} " in f" {' '.join(words)} "
