"""Synthetic sound events whose classes are described by attributes."""

import difflib
from numbers import Integral, Real

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, validate_params

from . import _synthesis

_FAMILIES = {
    "animals": ["bird_chirp", "crickets", "dog_bark"],
    "human": ["applause", "footsteps", "whistle"],
    "machines": ["clock_tick", "engine", "helicopter"],
    "nature": ["rain", "sea_waves", "thunder", "wind"],
    "signals": ["alarm_beep", "bell", "siren"],
}
_FAMILY = {label: family for family, labels in _FAMILIES.items() for label in labels}

# The bands, wideband, sustained and modulated are means over clips without
# background, the others are read off the recipes; rounded to the nearest 0.05.
# fmt: off
_ATTRIBUTE_NAMES = ["bass", "low", "mid", "high", "treble", "wideband", "pitched",
                    "impulsive", "rate", "sustained", "modulated", "sweeping"]
_ATTRIBUTES = {
    "alarm_beep": (  0,   0,   0, .95, .75, .10,   1, .30, .45, .55,   1,   0),
    "applause":   (  0, .30, .75, .95, .70, .80,   0, .50,   1,   1, .45,   0),
    "bell":       (  0, .75, .95, .65, .10, .25, .80, .50, .20, .90, .65,   0),
    "bird_chirp": (  0,   0,   0, .15,   1, .15, .90, .40, .50, .65, .80, .90),
    "clock_tick": (  0,   0, .30, .75, .95, .80,   0,   1, .40, .10,   1,   0),
    "crickets":   (  0,   0,   0,   0,   1, .10, .80, .20,   1,   1, .20,   0),
    "dog_bark":   (  0, .70, .90, .85, .35, .60, .60, .50, .35, .45,   1, .50),
    "engine":     (.95, .80, .50, .05,   0, .25, .50, .10,   1,   1, .20, .10),
    "footsteps":  (.90, .90, .40, .20, .20, .20,   0, .90, .30, .20,   1,   0),
    "helicopter": (.70, .90, .80, .40, .40, .40,   0, .30, .75,   1, .75,   0),
    "rain":       (  0, .05, .50, .80, .95, .90,   0, .10,   1,   1, .10,   0),
    "sea_waves":  (.25, .65, .90, .85, .45, .75,   0,   0, .10, .85, .75,   0),
    "siren":      (  0, .20, .95, .80, .60, .60,   1,   0, .15,   1,   0, .90),
    "thunder":    (  1, .55, .15, .20,   0, .10,   0, .30, .30, .70, .90,   0),
    "whistle":    (  0,   0, .65, .85, .40, .15,   1,   0,   0,   1,   0, .50),
    "wind":       (.80, .95, .60, .10,   0, .30,   0,   0, .10, .95, .50, .10),
}
# fmt: on

_DESCR = """\
Synthetic sound events
======================

Sixteen classes of sounds made by arithmetic alone, in five families: animals
(bird_chirp, crickets, dog_bark), human (applause, footsteps, whistle), machines
(clock_tick, engine, helicopter), nature (rain, sea_waves, thunder, wind) and signals
(alarm_beep, bell, siren). Pitch, rate, onset, level, background and its level vary
from clip to clip. Twelve attributes describe how each class sounds, so that a model
can name classes it was never trained on.
"""


@validate_params(
    {
        "n_clips_per_class": [Interval(Integral, 1, None, closed="left")],
        "classes": ["array-like", None],
        "duration": [Interval(Real, 0.5, None, closed="left")],
        "sampling_rate": [Interval(Integral, 16000, None, closed="left")],
        "snr_db": [Interval(Real, None, np.inf, closed="right")],
        "random_state": ["random_state"],
        "return_X_y": ["boolean"],
    },
    prefer_skip_nested_validation=True,
)
def make_sound_events(
    n_clips_per_class=20,
    *,
    classes=None,
    duration=2.0,
    sampling_rate=16000,
    snr_db=25.0,
    random_state=None,
    return_X_y=False,
):
    """Make labelled clips of sixteen kinds of sound, and attributes of each kind.

    Use it where real recordings are too big or too slow: for trying out a pipeline,
    in tests and in examples, and above all for zero-shot classification, since the
    attributes say how a class sounds that a model has not heard.

    Parameters
    ----------
    n_clips_per_class : int, default=20
        Number of clips of each class.
    classes : list of str, default=None
        Which classes to make, in this order; ``None`` makes all sixteen. The clips
        of a class don't depend on the other classes.
    duration : float, default=2.0
        Length of a clip in seconds, at least 0.5.
    sampling_rate : int, default=16000
        Rate in Hz, at least 16000.
    snr_db : float, default=25.0
        Level of the sound over its background noise in dB. That of each clip is drawn
        from the 6 dB on either side. ``np.inf`` leaves the background out.
    random_state : int, RandomState instance or None, default=None
        Seed of all that varies; an integer gives the same clips each time, and more
        clips of a class begin with the fewer. The global state is left alone.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of the whole bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        data : ndarray of shape (n_clips, n_samples), float32
            Waveforms in [-1, 1], class by class.
        target : ndarray of shape (n_clips,), str
            Labels such as ``"dog_bark"``.
        sampling_rate : int
            As given.
        attributes : dict of str to ndarray of shape (12,)
            How each of the sixteen classes sounds, made here or not; see Notes.
            It serves as the `label_embedder` of a zero-shot classifier.
        attribute_names : list of str
            Names of the attributes.
        fold : ndarray of shape (n_clips,), int
            Folds 1 to 5, each class spread evenly over them.
        groups : ndarray of shape (n_clips,), str
            Family of each clip: animals, human, machines, nature or signals.
        target_names : ndarray of shape (n_classes,), str
            The classes made, sorted.
        DESCR : str
            Description in words.
    (data, target) : tuple if `return_X_y` is True

    Raises
    ------
    ValueError
        If a class is unknown or named twice, or none is named.

    Notes
    -----
    Attributes lie in [0, 1] and are means over a class, without background:

    - bass, low, mid, high, treble: level of the band (up to 200, 500, 1200 and
      2800 Hz, and above) against the whole; 1 holds all energy, 0 is 30 dB less.
    - wideband: share of 64 mel bands within 20 dB of the strongest.
    - pitched: how clearly a pitch is heard.
    - impulsive: how sudden and how short the events are.
    - rate: events a second on a logarithmic scale; 1 for 32 and more.
    - sustained: share of 20 ms frames within 20 dB of the loudest.
    - modulated: standard deviation over mean of those frames' amplitude, 1 at most.
    - sweeping: how far the pitch glides.

    Examples
    --------
    >>> from sklabelaudio.datasets import make_sound_events
    >>> events = make_sound_events(5, classes=["siren", "rain"], random_state=0)
    >>> events.data.shape, events.data.dtype
    ((10, 32000), dtype('float32'))
    >>> events.target[[0, -1]].tolist(), events.groups[[0, -1]].tolist()
    (['siren', 'rain'], ['signals', 'nature'])
    >>> dict(zip(events.attribute_names, events.attributes["siren"]))["sweeping"]
    np.float64(0.9)
    """
    classes = _check_classes(classes)
    seed = _draw_seed(random_state)
    n_samples = round(duration * sampling_rate)
    data = np.empty((len(classes) * n_clips_per_class, n_samples), dtype=np.float32)
    for label, clips in zip(classes, np.split(data, len(classes)), strict=True):
        # The name is part of the seed, so that a class doesn't depend on the others.
        rng = np.random.default_rng([seed, *label.encode()])
        synth = _synthesis.Synth(rng, n_samples, sampling_rate)
        recipe = getattr(_synthesis, label)
        for clip in clips:
            clip[:] = _make_clip(recipe, synth, snr_db)
    target = np.repeat(classes, n_clips_per_class)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        sampling_rate=sampling_rate,
        attributes={label: np.array(row, float) for label, row in _ATTRIBUTES.items()},
        attribute_names=list(_ATTRIBUTE_NAMES),
        fold=_balanced_folds(classes, n_clips_per_class),
        groups=np.repeat([_FAMILY[label] for label in classes], n_clips_per_class),
        target_names=np.sort(classes),
        DESCR=_DESCR,
    )


def _make_clip(recipe, synth, snr_db):
    clip = recipe(synth)
    if snr_db < np.inf:
        # From a rumble to a hiss, lest a model learn a class by its background.
        background = synth.noise(
            synth.uniform(20, 200), 300 * 2 ** synth.uniform(0, 4.7)
        )
        level_db = snr_db + synth.uniform(-6, 6)
        rms = np.sqrt(np.mean(clip * clip))
        clip = clip + rms * 10 ** (-level_db / 20) * background
    return clip * (synth.uniform(0.25, 0.95) / np.abs(clip).max())


def _check_classes(classes):
    if classes is None:
        return list(_ATTRIBUTES)
    classes = list(classes)
    if not classes:
        raise ValueError(
            "classes names no class; give at least one, or None for all: "
            f"{', '.join(_ATTRIBUTES)}"
        )
    for label in classes:
        if label not in _ATTRIBUTES:
            nearest = difflib.get_close_matches(str(label), _ATTRIBUTES, 1, cutoff=0.5)
            hint = (
                f"did you mean {nearest[0]!r}?"
                if nearest
                else f"known are {', '.join(_ATTRIBUTES)}"
            )
            raise ValueError(f"classes holds the unknown class {label!r}; {hint}")
    if len(set(classes)) < len(classes):
        twice = sorted({label for label in classes if classes.count(label) > 1})
        raise ValueError(f"classes names {', '.join(twice)} more than once")
    return classes


def _draw_seed(random_state):
    if random_state is None:
        # check_random_state would draw from numpy's global generator here.
        return np.random.SeedSequence().entropy
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(random_state.randint(np.iinfo(np.int32).max))


def _balanced_folds(classes, n_clips_per_class):
    # Each class starts at its own fold, so that few clips still fill all five.
    starts = [list(_ATTRIBUTES).index(label) for label in classes]
    return (np.add.outer(starts, np.arange(n_clips_per_class)) % 5 + 1).ravel()
