"""`dpa2calc neb`: minimum-energy path between two structure files, with barrier, images and figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .common import (
    add_calculator_arguments,
    add_structure_argument,
    make_calculator,
    read_frame,
    read_structure,
)
from .report import add_output_arguments, report, work_folder

EXAMPLE = """\
example: barrier between two relaxed structures with the same atoms in the same order
  dpa2calc neb initial.extxyz --final final.extxyz --images 7 --out hop

The folder holds neb.npz (NudgedElasticBand.load), neb.png, path.extxyz with the images, and work/ from which
an interrupted run resumes.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `neb`."""
    parser = subparsers.add_parser(
        "neb",
        help="minimum-energy path and barrier between two structures",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_structure_argument(parser)
    parser.add_argument("--final", required=True, metavar="FILE", help="the other end of the path")
    add_calculator_arguments(parser)
    group = parser.add_argument_group("elastic band")
    group.add_argument("--images", type=int, default=7, help="ends included (7)")
    group.add_argument("--interpolation", choices=("idpp", "linear"), default="idpp", help="(idpp)")
    group.add_argument("--fixed-ends", action="store_true", help="do not relax the ends")
    group.add_argument("--no-climb", action="store_true", help="no climbing image")
    group.add_argument("--fmax", type=float, default=0.02, help="largest force at convergence, eV/Å (0.02)")
    group.add_argument("--spring", type=float, default=1.0, help="eV/Å² (1)")
    group.add_argument("--max-steps", type=int, default=1000, help="(1000)")
    add_output_arguments(parser, "neb")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the verb; 1 when the band did not converge."""
    import ase.io

    from dpa2calc.applications.neb import nudged_elastic_band

    initial = read_structure(args)
    final = read_frame(args.final)
    if args.repeat:
        final = final.repeat(args.repeat)
    initial.calc = make_calculator(args)
    result = nudged_elastic_band(
        initial,
        final,
        n_images=args.images,
        interpolation=args.interpolation,
        relax_ends=not args.fixed_ends,
        climb=not args.no_climb,
        fmax=args.fmax,
        spring=args.spring,
        max_steps=args.max_steps,
        folder=work_folder(args),
        progress=not args.no_progress,
    )
    report(result, args, "neb")
    ase.io.write(Path(args.out) / "path.extxyz", result.images())
    return 0 if result.converged else 1
