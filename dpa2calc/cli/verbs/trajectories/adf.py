"""`dpa2calc adf`: angular distribution of a trajectory."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from dpa2calc.cli.arguments.frames import add_selection_arguments, draw, selected_frames, write_table
from dpa2calc.cli.arguments.output import check_files, stem
from dpa2calc.errors import ConfigError

_EXAMPLE = """example:
  dpa2calc adf md.traj --triplet O-O-O --start 20 --reference dft.extxyz.xz --figure adf.png
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `adf`."""
    parser = subparsers.add_parser(
        "adf",
        help="angular distribution with error bars",
        description="Distribution of the angle A-B-C, B at the vertex, with block-averaged errors.",
        epilog=_EXAMPLE,
    )
    parser.add_argument("trajectory", help="any file that ASE reads, also compressed")
    parser.add_argument("--triplet", default="O-O-O", metavar="A-B-C", help="elements")
    parser.add_argument(
        "--cutoff",
        type=float,
        nargs="+",
        metavar="R",
        help="largest distance in Å, one or A-B and B-C (default: first minima of g(r))",
    )
    parser.add_argument("--bin-width", type=float, default=1.0, help="in degrees")
    parser.add_argument("--blocks", dest="n_blocks", type=int, default=10, help="blocks for the error bars")
    parser.add_argument(
        "--reference", metavar="FILE", help="trajectory to draw beside it, with the same cutoff"
    )
    parser.add_argument(
        "--figure", metavar="FILE", help="picture (default: NAME-adf.png, NAME from the input's)"
    )
    parser.add_argument("--data", metavar="FILE", help="also write the numbers as a text table")
    add_selection_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the summary, draw the figure, write the table."""
    from dpa2calc.applications import Frames, angular_distribution

    if args.cutoff is not None and len(args.cutoff) > 2:
        raise ConfigError(f"--cutoff has {len(args.cutoff)} numbers; give one, or A-B and B-C")
    cutoff = None if args.cutoff is None else (args.cutoff[0], args.cutoff[-1])
    options = {"bin_width": args.bin_width, "n_blocks": args.n_blocks, "progress": not args.quiet}
    figure = args.figure or f"{stem(args.trajectory)}-adf.png"
    check_files(figure, args.data)
    frames = selected_frames(args, args.trajectory)
    result = angular_distribution(frames, args.triplet, cutoff=cutoff, **options)
    print(result.summary())
    reference = None
    if args.reference:
        other = angular_distribution(Frames(args.reference), args.triplet, cutoff=result.cutoffs, **options)
        reference = {Path(args.reference).name: other}
        print(f"  against reference: {100 * result.compare(other):.2f} % of the angles differ")
    print(f"figure: {draw(figure, [partial(result.plot, reference=reference)])}")
    if args.data:
        columns = {
            "angle_deg": result.angle,
            "density_per_deg": result.density,
            "error": result.density_error,
        }
        print(f"data: {write_table(args.data, columns)}")
    return 0
