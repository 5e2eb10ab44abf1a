"""`dpa2calc neb`: minimum-energy path between two structure files, with barrier, images and figure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dpa2calc.cli.arguments.output import choose_folder, stem
from dpa2calc.cli.arguments.report import add_output_arguments, report, work_folder
from dpa2calc.cli.arguments.structures import (
    add_calculator_arguments,
    add_structure_argument,
    make_calculator,
    read_frame,
    read_structure,
)

EXAMPLE = """\
example: barrier between two relaxed structures with the same atoms in the same order
  dpa2calc neb initial.extxyz --final final.extxyz --head mlearn-PBE --images 7 --out hop

The folder holds neb.npz (NudgedElasticBand.load), neb.png, path.extxyz with the images, and work/ from which
an interrupted run resumes.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `neb`."""
    parser = subparsers.add_parser(
        "neb",
        help="minimum-energy path and barrier between two structures",
        epilog=EXAMPLE,
    )
    add_structure_argument(parser)
    parser.add_argument("--final", required=True, metavar="FILE", help="the other end of the path")
    add_calculator_arguments(parser)
    group = parser.add_argument_group("elastic band")
    group.add_argument("--images", dest="n_images", type=int, default=7, metavar="N", help="ends included")
    group.add_argument(
        "--interpolation", choices=("idpp", "linear"), default="idpp", help="of the first guess"
    )
    group.add_argument("--fixed-ends", dest="relax_ends", action="store_false", help="do not relax the ends")
    group.add_argument("--no-climb", dest="climb", action="store_false", help="no climbing image")
    group.add_argument("--fmax", type=float, default=0.02, help="largest force at convergence, eV/Å")
    group.add_argument("--spring", type=float, default=1.0, help="eV/Å²")
    group.add_argument("--max-steps", type=int, default=1000, help="of the optimiser")
    add_output_arguments(parser, "neb/INITIAL-FINAL, names from the input's")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the verb; 1 when the band did not converge."""
    import ase.io

    from dpa2calc.applications.defects.neb import nudged_elastic_band

    initial = read_structure(args)
    final = read_frame(args.final)
    if args.repeat:
        final = final.repeat(args.repeat)
    choose_folder(args, "neb", stem(args.final))
    initial.calc = make_calculator(args, [initial])
    result = nudged_elastic_band(
        initial,
        final,
        n_images=args.n_images,
        interpolation=args.interpolation,
        relax_ends=args.relax_ends,
        climb=args.climb,
        fmax=args.fmax,
        spring=args.spring,
        max_steps=args.max_steps,
        folder=work_folder(args),
        progress=not args.no_progress,
    )
    report(result, args, "neb")
    ase.io.write(Path(args.out) / "path.extxyz", result.images())
    return 0 if result.converged else 1
