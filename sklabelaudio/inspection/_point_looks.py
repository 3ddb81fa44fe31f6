"""Colours and markers that tell points apart, and the legend that names them."""

from itertools import cycle

import numpy as np

_MAX_IN_LEGEND = 50  # groups, above which the legend leaves them out
_LEGEND_ROWS = 25
MARKERS = "o^sDPX*v"


def choose_colors(cmap, groups):
    """Return the colour of each group.

    Parameters
    ----------
    cmap : str, matplotlib Colormap or None
        Where they are from; None for what the number of groups asks for.
    groups : list
        The groups.

    Returns
    -------
    dict
        Colours by group.
    """
    import matplotlib

    if cmap is None:
        cmap = next((f"tab{n}" for n in (10, 20) if len(groups) <= n), "turbo")
    cmap = matplotlib.colormaps.get_cmap(cmap)
    # A map of few colours is a list of them, one of many a scale.
    is_list = len(groups) <= cmap.N <= 20
    values = np.arange(len(groups)) if is_list else np.linspace(0, 1, len(groups))
    return dict(zip(groups, cmap(values), strict=True))


def choose_markers(kinds, groups):
    """Return the marker of each kind, or where there are none of each group.

    Groups then differ without their colours too, as they look to many people.

    Parameters
    ----------
    kinds : collection or None
        The kinds.
    groups : collection
        The groups.

    Returns
    -------
    dict
        Markers by kind or group.

    Raises
    ------
    ValueError
        If there are more kinds than markers.
    """
    if kinds is None:
        return dict(zip(groups, cycle(MARKERS), strict=False))
    if len(kinds) > len(MARKERS):
        raise ValueError(
            f"kinds holds {len(kinds)} different kinds, and there are {len(MARKERS)} "
            "markers: tell points apart by groups"
        )
    return dict(zip(kinds, MARKERS, strict=False))


def list_looks(colors, markers, *, has_kinds):
    """Return what a legend names.

    Parameters
    ----------
    colors : dict
        Colours by group.
    markers : dict
        Markers by kind, or by group.
    has_kinds : bool
        Whether they are by kind.

    Returns
    -------
    list of tuple
        Name, marker and colour of each line.
    """
    looks = []
    if len(colors) <= _MAX_IN_LEGEND:
        looks += [
            (group, "o" if has_kinds else markers[group], color)
            for group, color in colors.items()
        ]
    if has_kinds:
        looks += [(kind, marker, "black") for kind, marker in markers.items()]
    return [(str(name), *look) for name, *look in looks if name is not None]


def estimate_width(looks):
    """Return about how wide the legend of `looks` is, in inches."""
    longest = max((len(name) for name, *_ in looks), default=0)
    return -(-len(looks) // _LEGEND_ROWS) * (0.6 + 0.08 * longest)


def draw_legend(ax, looks, legend_kw):
    """Draw the legend of `looks`, and return it, or None if there are none.

    It stands beside the axes if the figure has a layout that makes room for it.
    """
    from matplotlib.lines import Line2D

    if not looks:
        return None
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=color, label=name)
        for name, marker, color in looks
    ]
    place = {"loc": "best", "fontsize": "small"}
    if ax.figure.get_layout_engine() is not None:
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    n_columns = -(-len(looks) // _LEGEND_ROWS)
    return ax.legend(handles=handles, **{**place, "ncols": n_columns, **legend_kw})
