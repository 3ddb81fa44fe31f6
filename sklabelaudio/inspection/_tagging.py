"""The picture of what a tagger hears when."""

import os
from pathlib import Path

import numpy as np

_SLACK = 1e-6  # by which rounding may lead out of 0 to 1


class TaggingDisplay:
    """Probabilities of the top labels of one clip, over seconds.

    Use it to see what a tagger hears and when, and which label it takes for which.

    It is recommended to use :meth:`from_estimator` or :meth:`from_probabilities`. All
    parameters are stored as attributes.

    Parameters
    ----------
    probabilities : ndarray of shape (n_steps, n_classes)
        Probability of each class at each step.
    labels : sequence of str of length n_classes
        Labels of the classes.
    times : ndarray of shape (n_steps,)
        Time of each step's middle in seconds, increasing.
    name : str, default=None
        Title of the picture, such as the file's name.

    Attributes
    ----------
    shown_labels_ : list of str
        The labels of the rows, from the top down.
    mesh_ : matplotlib QuadMesh
        The heat map, with a row for each label and a column for each step.
    colorbar_ : matplotlib Colorbar
        Its colour bar.
    ax_ : matplotlib Axes
        Axes with the heat map.
    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    LogMelDisplay : The spectrogram; both can share a time axis.

    Examples
    --------
    >>> from sklabelaudio.inspection import TaggingDisplay
    >>> probabilities = [[0.1, 0.8, 0.0], [0.7, 0.9, 0.1], [0.6, 0.2, 0.1]]
    >>> display = TaggingDisplay.from_probabilities(
    ...     probabilities,
    ...     labels=["Dog", "Rain", "Siren"],
    ...     times=[0.5, 1.5, 2.5],
    ...     top_k=2,
    ... )
    >>> display.shown_labels_
    ['Rain', 'Dog']
    """

    def __init__(self, probabilities, *, labels, times, name=None):
        self.probabilities = probabilities
        self.labels = labels
        self.times = times
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        clip,
        *,
        classifier=None,
        labels=None,
        duration=None,
        name=None,
        ax=None,
        **plot_kw,
    ):
        """Plot what a tagger hears in a clip.

        Parameters
        ----------
        estimator : estimator
            Gives the steps of a clip, and tells by ``frame_times`` when they are: a
            fitted embedder with ``output="framewise_probabilities"``; one with
            another output over time, such as ``"frames"``, and a `classifier` of its
            steps; or a tagger whose ``predict_proba`` has steps.
        clip : str, path or ndarray of shape (n_samples,)
            One clip.
        classifier : classifier, default=None
            Fitted classifier whose ``predict_proba`` takes the steps: one of vectors,
            or, to show other labels than the tagger's own, a
            :class:`~sklabelaudio.classification.TaggerZeroShotClassifier`.
        labels : sequence of str of length n_classes, default=None
            Labels of the classes. None takes those of the classifier, the tagger or
            the checkpoint.
        duration : float, default=None
            Length of the clip in seconds. None reads it off the file or the array.
        name : str, default=None
            Title. None takes the file's name if the clip is a path.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **plot_kw : dict
            Passed to :meth:`plot`.

        Returns
        -------
        TaggingDisplay
            The display, plotted.

        Raises
        ------
        TypeError
            If the estimator can't tell when its steps are.
        ValueError
            If there is one row for the whole clip, or the labels are not known.
        """
        is_file = isinstance(clip, (str, os.PathLike))
        if name is None and is_file:
            name = Path(clip).name
        predict = getattr(estimator, "predict_proba", None) or estimator.transform
        rows = np.asarray(predict([clip])[0])
        if rows.ndim != 2:
            raise ValueError(
                f"estimator gives one row for the whole clip, of shape {rows.shape}: "
                "set its output to 'framewise_probabilities', or to 'frames' with a "
                "classifier of vectors"
            )
        if not hasattr(estimator, "frame_times"):
            raise TypeError(
                f"{type(estimator).__name__} has no frame_times, which tells when its "
                "steps are: pass what it gives, with times, to from_probabilities"
            )
        if labels is None:
            labels = _find_labels(estimator, classifier)
        if duration is None:
            duration = _measure_duration(estimator, clip, is_file)
        return cls.from_probabilities(
            rows if classifier is None else classifier.predict_proba(rows),
            labels=labels,
            times=estimator.frame_times(len(rows), duration=duration),
            name=name,
            ax=ax,
            **plot_kw,
        )

    @classmethod
    def from_probabilities(
        cls, probabilities, *, labels, times, name=None, ax=None, **plot_kw
    ):
        """Plot probabilities over time.

        Parameters
        ----------
        probabilities : array-like of shape (n_steps, n_classes)
            Probability of each class at each step.
        labels : sequence of str of length n_classes
            Labels of the classes.
        times : array-like of shape (n_steps,)
            Time of each step's middle in seconds, increasing.
        name : str, default=None
            Title of the picture.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **plot_kw : dict
            Passed to :meth:`plot`.

        Returns
        -------
        TaggingDisplay
            The display, plotted.
        """
        display = cls(
            np.asarray(probabilities),
            labels=[str(label) for label in labels],
            times=np.asarray(times, dtype=float),
            name=name,
        )
        return display.plot(ax=ax, **plot_kw)

    def plot(self, *, top_k=10, rank_by="max", ax=None, **mesh_kw):
        """Plot the heat map.

        Parameters
        ----------
        top_k : int or None, default=10
            How many labels to show. None shows all.
        rank_by : {"max", "mean"}, default="max"
            What puts a label to the top: its greatest probability, which short events
            have too, or that over the clip.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure, large enough for the labels.
        **mesh_kw : dict
            Passed to matplotlib's ``pcolormesh``. The colours go from 0 to 1 unless
            ``vmin`` and ``vmax`` say otherwise.

        Returns
        -------
        TaggingDisplay
            The display itself.

        Raises
        ------
        ValueError
            If the shapes don't agree, `times` does not increase, or `probabilities`
            holds anything else.
        """
        import matplotlib.pyplot as plt

        probabilities, times = self._check()
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1, or None for all")
        if rank_by not in ("max", "mean"):
            raise ValueError(f"rank_by must be 'max' or 'mean', got {rank_by!r}")
        order = np.argsort(-getattr(np, rank_by)(probabilities, axis=0), kind="stable")
        shown = order[:top_k]
        self.shown_labels_ = [self.labels[index] for index in shown]
        if ax is None:
            size = (8, 1.5 + max(0.25 * len(shown), 1))  # inches
            _, ax = plt.subplots(figsize=size, layout="constrained")
        self.mesh_ = ax.pcolormesh(
            _find_edges(times),
            np.arange(len(shown) + 1) - 0.5,
            probabilities[:, shown].T,
            **{"vmin": 0.0, "vmax": 1.0, **mesh_kw},
        )
        ax.set_yticks(np.arange(len(shown)), self.shown_labels_)
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set(xlabel="Time (s)", title=self.name)
        self.colorbar_ = ax.figure.colorbar(
            self.mesh_, ax=ax, label="Probability", anchor=(0.0, 1.0)
        )
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _check(self):
        """Return the probabilities and times, and raise if they are none."""
        probabilities, times = np.asarray(self.probabilities), np.asarray(self.times)
        if probabilities.ndim != 2 or 0 in probabilities.shape:
            raise ValueError(
                "probabilities must have the shape (n_steps, n_classes) of one clip, "
                f"got {probabilities.shape}"
            )
        n_steps, n_classes = probabilities.shape
        if len(self.labels) != n_classes:
            raise ValueError(
                f"labels has {len(self.labels)} labels and probabilities {n_classes} "
                "columns: pass the label of each column. Vectors, which are no "
                "probabilities, need a classifier"
            )
        if times.shape != (n_steps,):
            raise ValueError(
                f"probabilities has {n_steps} steps and times has the shape "
                f"{times.shape}: probabilities is (n_steps, n_classes), times "
                "(n_steps,)"
            )
        if not (np.diff(times) > 0).all() or not np.isfinite(times).all():
            raise ValueError("times must increase from step to step, in seconds")
        if np.isnan(probabilities).any():
            raise ValueError(
                "probabilities holds NaN, as the rows of clips that can't be read do: "
                "leave out such a clip"
            )
        least, greatest = probabilities.min(), probabilities.max()
        if least < -_SLACK or greatest > 1 + _SLACK:
            raise ValueError(
                f"probabilities goes from {least:.3g} to {greatest:.3g}, and "
                "probabilities lie between 0 and 1: turn logits into them by "
                "scipy.special.expit"
            )
        return probabilities, times


def _find_labels(estimator, classifier):
    owner = estimator if classifier is None else classifier
    labels = getattr(owner, "classes_", None)
    if labels is None:
        labels = getattr(getattr(owner, "checkpoint_", None), "labels", None)
    if labels is None:
        raise ValueError(
            f"labels=None, and {type(owner).__name__} has no list of its classes: "
            "pass labels, the label of each class in the order of the probabilities"
        )
    return labels


def _measure_duration(estimator, clip, is_file):
    """Return the length of a clip in seconds, or None if it isn't known."""
    if is_file:
        import soundfile

        return soundfile.info(os.fspath(clip)).duration
    rate = getattr(estimator, "sampling_rate", None)
    return None if rate is None else len(clip) / rate


def _find_edges(times):
    """Return where steps begin and end: halfway between their middles."""
    middles = (times[1:] + times[:-1]) / 2
    if len(middles):
        first, last = 2 * times[[0, -1]] - middles[[0, -1]]
    else:  # one step, which is all of the clip
        first, last = (0.0, 2 * times[0]) if times[0] > 0 else times[0] + [-0.5, 0.5]
    # Nothing is before the clip's start.
    return np.concatenate([[max(first, min(0.0, times[0]))], middles, [last]])
