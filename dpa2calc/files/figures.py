"""Axes to draw into, and figures into files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpa2calc.errors import OutputError

from .atomic import atomic_path, check_writable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported when something is drawn
    Axes = object

Size = tuple[float, float]  # width and height in inches


def axes_for(ax: Axes | None, size: Size | None = None) -> Axes:
    """The axes that a `plot` was given, or those of a new figure."""
    return ax if ax is not None else panels_for(None, 1, size)[0]


def panels_for(axes: Sequence[Axes] | None, number: int, size: Size | None = None) -> Sequence[Axes]:
    """The axes that a `plot` was given, or so many, side by side, of a new figure."""
    if axes is not None:
        return axes
    import matplotlib.pyplot as plt

    panels: Sequence[Axes] = plt.subplots(1, number, figsize=size, layout="constrained", squeeze=False)[1][0]
    return panels


def check_figure(path: str | os.PathLike[str]) -> Path:
    """Find out before the work that a picture cannot be written.

    Raises:
        OutputError: as `check_writable`, or an ending that is of no picture.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(path).suffix.lower().removeprefix(".") not in known:
        raise OutputError(f"{path} has the ending of no picture; allowed: .{', .'.join(known)}")
    return check_writable(path)


def save_figure(
    path: str | os.PathLike[str],
    *plots: Callable[..., object],
    panels: int | None = None,
    size: Size | None = None,
) -> Path:
    """Draw side by side and write the picture, whole or not at all; its format follows the name.

    The figure has a canvas of its own: no backend is set and no window opens.

    Args:
        plots: each draws into the axes that it is given, as the `plot` of every result does.
        panels: number of axes that each plot is given together; None gives it one by itself.
        size: width and height in inches.

    Raises:
        OutputError: the file cannot be written, or has the ending of no picture.

    Example:
        >>> save_figure("rdf.png", rdf.plot)
    """
    check_figure(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    each = panels or 1
    number = each * len(plots)
    size = size or ((6.4, 4.4) if number == 1 else (5.0 * number, 4.0))
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, number, squeeze=False)[0]
    for place, plot in enumerate(plots):
        own = axes[each * place : each * (place + 1)]
        plot(own[0] if panels is None else own)
    with atomic_path(path) as temporary:
        if Path(path).suffix.lower() == ".png":
            canvas.print_png(temporary)  # `savefig` draws everything once before it draws
        else:
            figure.savefig(temporary, dpi=150)
    return Path(path)
