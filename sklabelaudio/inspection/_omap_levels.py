"""The picture of how models compare at each level of OmAP."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np

from ..metrics import omap_levels
from ..metrics._omap_scorer import SCORING_METHODS, check_scoring, score_classes

_MARKERS = "os^Dv*"


class OmAPLevelsDisplay:
    """OmAP at each level, of one model against another.

    Use it to see where a tagger gains or loses: at low levels among classes that are
    near to each other, at high levels between those that are far apart [1]_.

    It is recommended to use :meth:`from_estimators`, :meth:`from_predictions` or
    :meth:`from_levels`. All parameters are stored as attributes.

    Parameters
    ----------
    scores : dict of str to ndarray of shape (n_levels,)
        OmAP at each level, by name of the model.
    levels : ndarray of shape (n_levels,), default=None
        The levels. None takes 0, 1, 2 and so on.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        The curve of each model that is drawn.
    baseline_line_ : matplotlib Line2D or None
        The line at 0, None if the scores themselves are drawn.
    legend_ : matplotlib Legend
        The names of the curves.
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure containing the axes.

    See Also
    --------
    sklabelaudio.metrics.omap_levels : The scores.

    References
    ----------
    .. [1] W. Liu and Y. Ren, "Semantic Proximity Alignment: Towards Human
       Perception-consistent Audio Tagging by Aligning with Label Text Description",
       ICASSP 2024, figure 3.

    Examples
    --------
    >>> from sklabelaudio.inspection import OmAPLevelsDisplay
    >>> distances = [[0, 4, 3], [4, 0, 1], [3, 1, 0]]
    >>> y_true = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    >>> y_scores = {
    ...     "far": [[0.5, 0.1, 0.1], [0.7, 0.6, 0.1], [0.1, 0.2, 0.5]],
    ...     "near": [[0.9, 0.1, 0.1], [0.1, 0.6, 0.7], [0.1, 0.2, 0.5]],
    ... }
    >>> display = OmAPLevelsDisplay.from_predictions(
    ...     y_true, y_scores, distances=distances
    ... )
    >>> display.lines_["near"].get_ydata().round(2)
    array([0.11, 0.21, 0.21, 0.25, 0.  ])
    >>> display.ax_.get_ylabel()
    'OmAP above that of far'
    """

    def __init__(self, scores, *, levels=None):
        self.scores = scores
        self.levels = levels

    @classmethod
    def from_estimators(
        cls,
        estimators,
        X,
        y,
        *,
        distances,
        labels=None,
        response_method=SCORING_METHODS,
        baseline="auto",
        ax=None,
        **params,
    ):
        """Plot the levels of fitted models on the same clips.

        Parameters
        ----------
        estimators : dict of str to classifier
            Fitted classifiers, by name of the model.
        X : array-like of shape (n_clips, ...)
            The clips, as the classifiers take them.
        y : array-like of shape (n_clips,) or (n_clips, n_classes), or sequence of \
                sequences of labels
            What the clips are, as for :func:`~sklabelaudio.metrics.omap_levels`.
        distances : array-like of shape (n_classes, n_classes)
            Distance between every two classes.
        labels : array-like of shape (n_classes,), default=None
            The labels of the rows of `distances`, needed unless y is an indicator
            matrix. The columns of a classifier's scores are brought in this order.
        response_method : str or sequence of str, \
                default=("predict_proba", "decision_function")
            The method that gives scores; of several the first that there is.
        baseline : str, dict of str to str, "auto" or None, default="auto"
            What is subtracted, see :meth:`plot`.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **params : dict
            Passed to :meth:`from_predictions`.

        Returns
        -------
        OmAPLevelsDisplay
            The display, plotted.

        Raises
        ------
        TypeError
            If a model has no such method.
        ValueError
            If :func:`~sklabelaudio.metrics.omap_levels` can't score a model.
        """
        estimators = _check_named(estimators, "estimators")
        matrix, labels, methods = check_scoring(distances, labels, response_method)
        wanted = {"methods": methods, "labels": labels, "n_classes": len(matrix)}
        return cls.from_predictions(
            y,
            {
                name: score_classes(estimator, X, y, **wanted)
                for name, estimator in estimators.items()
            },
            distances=distances,
            labels=labels,
            baseline=baseline,
            ax=ax,
            **params,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_scores,
        *,
        distances,
        weighting="distance",
        levels=None,
        average="macro",
        sample_weight=None,
        labels=None,
        zero_division="warn",
        unlabelled="warn",
        baseline="auto",
        ax=None,
        **line_kw,
    ):
        """Plot the levels of models from their scores of the same clips.

        Parameters
        ----------
        y_true : array-like or sparse matrix of shape (n_clips, n_classes), sequence \
                of sequences of labels, or array-like of shape (n_clips,)
            What the clips are, as for :func:`~sklabelaudio.metrics.omap_levels`.
        y_scores : dict of str to array-like of shape (n_clips, n_classes)
            Scores of the clips, by name of the model.
        distances : array-like of shape (n_classes, n_classes)
            Distance between every two classes.
        weighting : {"distance", "binary"}, default="distance"
            What a false positive weighs.
        levels : array-like of shape (n_levels,), default=None
            The distances up to which false positives cost nothing. None is every
            whole number from 0 to the greatest distance.
        average : {"macro", "weighted"}, default="macro"
            The mean over classes, or that weighted by their numbers of clips.
        sample_weight : array-like of shape (n_clips,), default=None
            Weights of the clips.
        labels : array-like of shape (n_classes,), default=None
            The labels of the columns, needed where `y_true` holds labels.
        zero_division : {"warn", 0.0, 1.0, np.nan}, default="warn"
            The score of a class that no clip is of: ``"warn"`` is 0 with a warning,
            and NaN leaves it out of the mean.
        unlabelled : {"warn", "farthest", "ignore"}, default="warn"
            What becomes of clips without a label.
        baseline : str, dict of str to str, "auto" or None, default="auto"
            What is subtracted, see :meth:`plot`.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **line_kw : dict
            Passed to matplotlib's ``plot``.

        Returns
        -------
        OmAPLevelsDisplay
            The display, plotted.

        Raises
        ------
        ValueError
            If :func:`~sklabelaudio.metrics.omap_levels` can't score a model.
        """
        y_scores = _check_named(y_scores, "y_scores")
        if average is None:
            raise ValueError(
                "average=None gives a score for each class, and a curve is drawn of "
                "their mean: set average to 'macro' or 'weighted'"
            )
        scores = {}
        for name, y_score in y_scores.items():
            scores[name] = omap_levels(
                y_true,
                y_score,
                distances=distances,
                weighting=weighting,
                levels=levels,
                average=average,
                sample_weight=sample_weight,
                labels=labels,
                zero_division=zero_division,
                unlabelled=unlabelled,
            )
            # The clips are the same for all, and one warning of them is enough.
            zero_division = 0.0 if zero_division == "warn" else zero_division
            unlabelled = "farthest" if unlabelled == "warn" else unlabelled
        return cls.from_levels(
            scores, levels=levels, baseline=baseline, ax=ax, **line_kw
        )

    @classmethod
    def from_levels(cls, scores, *, levels=None, baseline="auto", ax=None, **line_kw):
        """Plot levels that were computed before.

        Parameters
        ----------
        scores : dict of str to array-like of shape (n_levels,)
            What :func:`~sklabelaudio.metrics.omap_levels` gave, by name of the model.
        levels : array-like of shape (n_levels,), default=None
            The levels that it was told. None takes 0, 1, 2 and so on.
        baseline : str, dict of str to str, "auto" or None, default="auto"
            What is subtracted, see :meth:`plot`.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **line_kw : dict
            Passed to matplotlib's ``plot``.

        Returns
        -------
        OmAPLevelsDisplay
            The display, plotted.
        """
        scores = {
            name: np.asarray(values, dtype=float)
            for name, values in _check_named(scores, "scores").items()
        }
        if levels is not None:
            levels = np.asarray(levels, dtype=float)
        return cls(scores, levels=levels).plot(baseline=baseline, ax=ax, **line_kw)

    def plot(self, *, baseline="auto", ax=None, **line_kw):
        """Plot the curves.

        The legend gives their means over the levels: with all levels OmAP itself, or
        the difference of two.

        Parameters
        ----------
        baseline : str, dict of str to str, "auto" or None, default="auto"
            What is subtracted:

            - the name of a model: its scores, from those of all others;
            - a dict: of each model that it names the scores of another, such as
              ``{"PaSST, aligned": "PaSST", "PANN, aligned": "PANN"}``. Only these
              differences are drawn;
            - ``"auto"``: the scores of the first model, if there are several;
            - None: nothing, so that the scores themselves are drawn.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a new figure.
        **line_kw : dict
            Passed to matplotlib's ``plot``.

        Returns
        -------
        OmAPLevelsDisplay
            The display itself.

        Raises
        ------
        ValueError
            If the numbers of levels differ, a score is not finite, or `baseline`
            names no model.
        """
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        levels = self._check()
        baselines = self._find_baselines(baseline)
        is_difference = None not in baselines.values()
        is_own = ax is None
        if is_own:
            size = (6.4, 4.8 + 0.2 * len(baselines))  # inches
            _, ax = plt.subplots(figsize=size, layout="constrained")
        line_kw = {"markersize": 4, **line_kw}
        order = np.argsort(levels)
        self.lines_ = {}
        # Markers tell curves apart where colours do not.
        for (name, other), marker in zip(
            baselines.items(), cycle(_MARKERS), strict=False
        ):
            values, mean_format = np.asarray(self.scores[name]), ".3f"
            if is_difference:
                values, mean_format = values - np.asarray(self.scores[other]), "+.3f"
            curve = name
            if isinstance(baseline, Mapping):
                curve = f"{name} \N{MINUS SIGN} {other}"
            mean = f"{values.mean():{mean_format}}".replace("-", "\N{MINUS SIGN}")
            (self.lines_[name],) = ax.plot(
                levels[order],
                values[order],
                label=f"{curve} ({mean})",
                **{"marker": marker, **line_kw},
            )
        self.baseline_line_, ylabel = None, "OmAP"
        if is_difference:
            self.baseline_line_ = ax.axhline(0, color="grey", linewidth=1, zorder=1)
            (first, *more) = dict.fromkeys(baselines.values())
            ylabel = "Difference of OmAP" if more else f"OmAP above that of {first}"
        if (levels % 1 == 0).all():
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="Level (greatest distance forgiven)", ylabel=ylabel)
        self.legend_ = _draw_legend(ax, is_below=is_own)
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _check(self):
        """Return the levels, and raise if the scores don't fit."""
        names = list(_check_named(self.scores, "scores"))
        n_levels = len(np.ravel(self.scores[names[0]]))
        levels = np.arange(n_levels) if self.levels is None else self.levels
        levels = np.asarray(levels)
        for name in names:
            shape = np.shape(self.scores[name])
            if len(shape) != 1:
                raise ValueError(
                    f"the scores of {name!r} have the shape {shape}: pass one for each "
                    "level, a mean over classes such as average='macro' gives"
                )
            if shape != np.shape(levels):
                raise ValueError(
                    f"{name!r} has {shape[0]} scores for levels of the shape "
                    f"{np.shape(levels)}: score all models at the same levels"
                )
            if not np.isfinite(self.scores[name]).all():
                raise ValueError(
                    f"the scores of {name!r} are not all finite: score clips of at "
                    "least one class, or set zero_division=0.0"
                )
        return levels

    def _find_baselines(self, baseline):
        """Return, for each model to draw, the name of that to subtract or None."""
        names = list(self.scores)
        if baseline == "auto" and "auto" not in names:
            baseline = names[0] if len(names) > 1 else None
        if baseline is None:
            return dict.fromkeys(names)
        if isinstance(baseline, Mapping):
            baselines = dict(baseline)
        else:
            baselines = dict.fromkeys(names, baseline)
            baselines.pop(baseline, None)
        unknown = {*baselines, *baselines.values()} - set(names)
        if unknown:
            raise ValueError(
                f"baseline names {sorted(unknown)}, and the models are {names}: name "
                "one of them"
            )
        same = any(name == other for name, other in baselines.items())
        if same or not baselines:
            raise ValueError(
                f"baseline={baseline!r} leaves nothing to compare: subtract the scores "
                "of another model, or pass baseline=None to draw them as they are"
            )
        return baselines


def _draw_legend(ax, *, is_below):
    from matplotlib.transforms import ScaledTranslation

    place = {"loc": "best"}
    if is_below:
        # Below the ticks and the name of the axis, half an inch.
        shift = ScaledTranslation(0, -0.5, ax.figure.dpi_scale_trans)
        place = {
            "loc": "upper center",
            "bbox_to_anchor": (0.5, 0.0),
            "bbox_transform": ax.transAxes + shift,
        }
    return ax.legend(title="Mean over levels", fontsize="small", **place)


def _check_named(values, name):
    """Return what is given by model as a dict; a DataFrame's columns are models."""
    if not hasattr(values, "keys"):
        raise TypeError(
            f"{name} is a {type(values).__name__}: pass a dict of models, such as "
            f"{{'my model': {name}}}"
        )
    values = dict(values)
    if not values:
        raise ValueError(f"{name} is empty: it needs at least one model")
    return values
