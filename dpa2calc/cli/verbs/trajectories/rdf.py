"""`dpa2calc rdf`: partial radial distribution functions of a trajectory."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from dpa2calc.cli.arguments.frames import (
    add_distribution_arguments,
    figure_name,
    selected_frames,
    write_table,
)
from dpa2calc.cli.arguments.written import values_of, write_values
from dpa2calc.files.figures import save_figure

EXAMPLE = """example:
  dpa2calc rdf md.traj --pairs O-O O-H H-H --r-max 6 --start 20 --reference dft.extxyz.xz --figure rdf.png
"""
DESCRIPTION = "Partial g(r), running coordination numbers and their block-averaged errors."
TABLE = "a row a distance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--pairs", nargs="+", default=["O-O"], metavar="A-B", help="pairs of elements")
    parser.add_argument("--r-max", type=float, help="range in Å (default: half the smallest cell height)")
    text = "of like pairs: an ideal gas of N atoms gives exactly 1 with N-1; N makes supercells agree"
    parser.add_argument("--normalisation", choices=("auto", "N-1", "N"), default="auto", help=text)
    reference = "to draw and compare beside it"
    add_distribution_arguments(parser, "rdf", bin_width=0.05, unit="Å", reference=reference)


def run(args: argparse.Namespace) -> int:
    """Print summaries, draw the figure, write the table."""
    from dpa2calc.applications import Frames, RadialDistribution, radial_distributions

    options = {"bin_width": args.bin_width, "n_blocks": args.n_blocks, "normalisation": args.normalisation}
    progress = not args.quiet
    figure = figure_name(args, "rdf")
    frames = selected_frames(args, args.trajectory)
    curves = radial_distributions(frames, args.pairs, r_max=args.r_max, progress=progress, **options)
    others: dict[str, RadialDistribution] = {}
    if args.reference:
        range_used = float(next(iter(curves.values())).upper_edges[-1])
        others = radial_distributions(
            Frames(args.reference), args.pairs, r_max=range_used, progress=progress, **options
        )
    for name, curve in curves.items():
        print(curve.summary())
        if name in others:
            print(f"  against reference: {curve.compare(others[name]).summary()}")
    plots = [
        partial(curve.plot, reference={Path(args.reference).name: others[name]} if name in others else None)
        for name, curve in curves.items()
    ]
    print(f"figure: {save_figure(figure, *plots)}")
    first = next(iter(curves.values()))
    columns: dict[str, np.ndarray] = {"r_A": first.r}
    for name, curve in curves.items():
        columns |= {f"g_{name}": curve.g, f"error_g_{name}": curve.g_error}
        columns |= {f"n_{name}": curve.coordination, f"error_n_{name}": curve.coordination_error}
    values = {name: values_of(curve) for name, curve in curves.items()}
    write_values(args, type(first), values, columns, made_by=first.provenance)
    if args.data:
        print(f"data: {write_table(args.data, columns)}")
    return 0
