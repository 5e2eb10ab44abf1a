"""Options that the verbs on trajectories share: which frames, where the figure and the numbers go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --start, --stop, --step and --quiet."""
    group = parser.add_argument_group("frames")
    group.add_argument(
        "--start", type=int, help="first frame, to skip the equilibration (negative: from the end)"
    )
    group.add_argument("--stop", type=int, help="frame to stop before")
    group.add_argument("--step", type=int, default=1, help="take every STEP-th frame")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def selected_frames(args: argparse.Namespace, path: str) -> Any:
    """`Frames` of a file with the options of `add_selection_arguments`."""
    from dpa2calc.applications import Frames

    return Frames(path, start=args.start, stop=args.stop, step=args.step)


def draw(path: str | os.PathLike[str], plots: Sequence[Callable[[Any], Any]]) -> Path:
    """Draw each of `plots` into axes of its own, side by side, without a display.

    A figure of its own and the Agg canvas are used, so no backend is set and no window opens.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(5.2 * len(plots), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, plot in zip(figure.subplots(1, len(plots), squeeze=False)[0], plots):
        plot(ax)
    figure.savefig(target, dpi=150)
    return target


def write_table(path: str | os.PathLike[str], columns: dict[str, np.ndarray]) -> Path:
    """Write equally long columns as text, with their names and units in a comment line."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    np.savetxt(temporary, np.stack(list(columns.values()), axis=1), header="  ".join(columns), fmt="%.8g")
    os.replace(temporary, target)
    return target
