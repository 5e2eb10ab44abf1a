"""Figures into files: on a canvas of their own, so that no backend is set and no window opens."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .atomic import atomic_path


def save_figure(
    path: str | os.PathLike[str],
    *plots: Callable[[Any], Any],
    panels: int | None = None,
    size: tuple[float, float] | None = None,
) -> Path:
    """Draw side by side and write the picture, whole or not at all; its format follows the name.

    Args:
        plots: each draws into the axes that it is given, as the `plot` of every result does.
        panels: number of axes that each plot is given together; None gives it one by itself.
        size: width and height in inches.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> save_figure("rdf.png", rdf.plot)
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    each = panels or 1
    number = each * len(plots)
    figure = Figure(
        figsize=size or ((6.4, 4.4) if number == 1 else (5.0 * number, 4.0)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, number, squeeze=False)[0]
    for place, plot in enumerate(plots):
        own = axes[each * place : each * (place + 1)]
        plot(own[0] if panels is None else own)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return Path(path)
