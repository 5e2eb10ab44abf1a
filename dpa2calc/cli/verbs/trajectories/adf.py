"""`dpa2calc adf`: angular distribution of a trajectory."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from dpa2calc.cli.arguments.frames import (
    add_distribution_arguments,
    figure_name,
    selected_frames,
    write_table,
)
from dpa2calc.cli.arguments.written import write_result
from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import save_figure

EXAMPLE = """example:
  dpa2calc adf md.traj --triplet O-O-O --start 20 --reference dft.extxyz.xz --figure adf.png
"""
DESCRIPTION = "Distribution of the angle A-B-C, B at the vertex, with block-averaged errors."
TABLE = "a row an angle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--triplet", default="O-O-O", metavar="A-B-C", help="elements")
    text = "largest distance in Å, one or A-B and B-C (default: first minima of g(r))"
    parser.add_argument("--cutoff", type=float, nargs="+", metavar="R", help=text)
    reference = "to draw beside it, with the same cutoff"
    add_distribution_arguments(parser, "adf", bin_width=1.0, unit="degrees", reference=reference)


def run(args: argparse.Namespace) -> int:
    """Print the summary, draw the figure, write the table."""
    from dpa2calc.applications import Frames, angular_distribution

    if args.cutoff is not None and len(args.cutoff) > 2:
        raise ConfigError(f"--cutoff has {len(args.cutoff)} numbers; give one, or A-B and B-C")
    cutoff = None if args.cutoff is None else (args.cutoff[0], args.cutoff[-1])
    options = {"bin_width": args.bin_width, "n_blocks": args.n_blocks, "progress": not args.quiet}
    figure = figure_name(args, "adf")
    frames = selected_frames(args, args.trajectory)
    result = angular_distribution(frames, args.triplet, cutoff=cutoff, **options)
    print(result.summary())
    reference = None
    if args.reference:
        other = angular_distribution(Frames(args.reference), args.triplet, cutoff=result.cutoffs, **options)
        reference = {Path(args.reference).name: other}
        print(f"  against reference: {100 * result.compare(other):.2f} % of the angles differ")
    print(f"figure: {save_figure(figure, partial(result.plot, reference=reference))}")
    columns = {"angle_deg": result.angle, "density_per_deg": result.density, "error": result.density_error}
    write_result(args, result, columns)
    if args.data:
        print(f"data: {write_table(args.data, columns)}")
    return 0
