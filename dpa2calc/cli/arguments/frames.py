"""Options that the verbs on trajectories share: which frames, where the figure and the numbers go."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpa2calc.files.atomic import atomic_path
from dpa2calc.files.figures import check_figure

from .output import check_files, stem

if TYPE_CHECKING:
    from dpa2calc.applications import Frames


def add_selection_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --start, --stop, --step and --quiet."""
    group = parser.add_argument_group("frames")
    add = group.add_argument
    add("--start", type=int, help="first frame, to skip the equilibration (negative: from the end)")
    add("--stop", type=int, help="frame to stop before")
    add("--step", type=int, default=1, help="take every STEP-th frame")
    add("--quiet", action="store_true", help="no progress bar")


def add_distribution_arguments(
    parser: argparse.ArgumentParser, verb: str, *, bin_width: float, unit: str, reference: str
) -> None:
    """Add TRAJECTORY, --bin-width, --blocks, --reference, --figure, --data and the selection of frames.

    Args:
        reference: for the help, what is done with that trajectory.
    """
    add = parser.add_argument
    add("trajectory", help="any file that ASE reads, also compressed")
    add("--bin-width", type=float, default=bin_width, help=f"in {unit}")
    add("--blocks", dest="n_blocks", type=int, default=10, help="blocks for the error bars")
    add("--reference", metavar="FILE", help=f"trajectory {reference}")
    add("--figure", metavar="FILE", help=f"picture (default: NAME-{verb}.png, NAME from the input's)")
    add("--data", metavar="FILE", help="also write the numbers as a text table")
    add_selection_arguments(parser)


def figure_name(args: argparse.Namespace, verb: str) -> str:
    """The file of --figure, NAME-VERB.png when left out; it and --data can be written.

    Raises:
        OutputError: one of them cannot.
    """
    figure = args.figure or f"{stem(args.trajectory)}-{verb}.png"
    check_figure(figure)
    check_files(args.data)
    return str(figure)


def selected_frames(args: argparse.Namespace, path: str) -> Frames:
    """`Frames` of a file with the options of `add_selection_arguments`."""
    from dpa2calc.applications import Frames

    return Frames(path, start=args.start, stop=args.stop, step=args.step)


def write_table(path: str | os.PathLike[str], columns: dict[str, np.ndarray]) -> Path:
    """Write equally long columns as text, with their names and units in a comment line."""
    with atomic_path(path) as temporary:
        rows = np.stack(list(columns.values()), axis=1)
        np.savetxt(temporary, rows, header="  ".join(columns), fmt="%.8g")
    return Path(path)
