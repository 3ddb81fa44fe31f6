"""Texts beside points, where they cover little."""

import numpy as np

# How far texts may stand from their points, in typographic points: beside them, or
# farther off with a line.
_GAPS = (6, 16, 28)
_RADIUS = 4  # of a point, less than the least gap
_SIDES = [(1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7)]
_SIDES += [(-0.7, -0.7)]
# The places in order of preference, as offsets from the point.
_PLACES = [gap * np.array(side) for gap in _GAPS for side in _SIDES]
_HORIZONTAL = {1: "left", 0: "center", -1: "right"}
_VERTICAL = {1: "bottom", 0: "center", -1: "top"}


def label_points(ax, points, labels, *, obstacles, legend, **text_kw):
    """Write labels beside points.

    Each text goes to that place around its point where it covers least of the texts
    before it, of other points, and of what is outside the axes.

    Parameters
    ----------
    ax : matplotlib Axes
        Axes whose limits are as they will be.
    points : ndarray of shape (n_labels, 2)
        Points, in the coordinates of the data.
    labels : sequence of str of length n_labels
        Their labels.
    obstacles : ndarray of shape (n_obstacles, 2)
        Points that are better not covered.
    legend : matplotlib Legend or None
        A legend, neither.
    **text_kw : dict
        Passed to matplotlib's ``annotate``.

    Returns
    -------
    list of matplotlib Annotation
        The texts.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    if not len(labels):
        return []
    text_kw = {
        "fontsize": "small",
        "path_effects": [withStroke(linewidth=2, foreground="white")],
        "arrowprops": {"arrowstyle": "-", "color": "grey", "linewidth": 0.5},
        **text_kw,
    }
    texts = [
        ax.annotate(label, point, (0, 0), textcoords="offset points", **text_kw)
        for label, point in zip(labels, points, strict=True)
    ]
    for text in texts:
        text.set_in_layout(False)  # texts without a place yet would push the axes
    figure = ax.get_figure(root=True)
    figure.draw_without_rendering()
    pixels = ax.transData.transform(points)
    obstacles = ax.transData.transform(obstacles)
    # Somewhat less than the axes, for a layout may still change when others are drawn.
    margin = 0.03 * ax.bbox.width
    inside = ax.bbox.padded(-margin).extents[np.newaxis]
    scale = figure.dpi / 72
    offsets = np.array(_PLACES) * scale
    placed = np.empty((0, 4))
    if legend is not None:
        placed = legend.get_window_extent().extents[np.newaxis]
    for text, pixel in zip(texts, pixels, strict=True):
        extent = Text.get_window_extent(text)  # an annotation's has the line with it
        size = np.array([extent.width, extent.height])
        centres = pixel + offsets + np.sign(offsets) * size / 2
        boxes = np.hstack([centres - size / 2, centres + size / 2])
        covered = _overlaps(boxes, placed).sum(axis=1)
        near = boxes + scale * _RADIUS * np.array([-1, -1, 1, 1])
        covered += size.prod() / 4 * _count_inside(near, obstacles)
        covered += 10 * (size.prod() - _overlaps(boxes, inside)[:, 0])
        best = int(np.argmin(covered.round()))
        placed = np.vstack([placed, boxes[best]])
        x, y = np.sign(_PLACES[best])
        text.set(
            position=_PLACES[best],
            ha=_HORIZONTAL[x],
            va=_VERTICAL[y],
            in_layout=True,
        )
        text.arrow_patch.set_visible(best >= len(_SIDES))
    return texts


def _overlaps(boxes, others):
    """Return the area that each box shares with each of others."""
    lower = np.maximum(boxes[:, np.newaxis, :2], others[:, :2])
    upper = np.minimum(boxes[:, np.newaxis, 2:], others[:, 2:])
    return (upper - lower).clip(min=0).prod(axis=2)


def _count_inside(boxes, points):
    boxes = boxes[:, np.newaxis]
    return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(axis=2).sum(1)
