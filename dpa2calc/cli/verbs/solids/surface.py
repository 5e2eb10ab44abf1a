"""`dpa2calc surface`: surface energy from a bulk structure file to a number and a figure."""

from __future__ import annotations

import argparse
from typing import Any

from dpa2calc.cli.arguments.freedom import add_relax_argument
from dpa2calc.cli.arguments.output import choose_folder
from dpa2calc.cli.arguments.report import add_output_arguments, report, work_folder
from dpa2calc.cli.arguments.structures import (
    add_calculator_arguments,
    add_structure_argument,
    make_calculator,
    read_structure,
)

EXAMPLE = """\
example: the (111) face of copper, from the file of its bulk crystal
  dpa2calc surface Cu.cif --head mlearn-PBE --miller 1 1 1 --out Cu-111

The folder holds surface.npz (SurfaceEnergy.load), surface.png, slab.extxyz (the thickest slab), and work/
from which an interrupted run resumes.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `surface`."""
    parser = subparsers.add_parser(
        "surface",
        help="surface energy of a face, from slabs of several thicknesses",
        epilog=EXAMPLE,
    )
    add_structure_argument(parser)
    add_calculator_arguments(parser)
    group = parser.add_argument_group("surface")
    group.add_argument(
        "--miller",
        type=int,
        nargs=3,
        default=(1, 1, 1),
        metavar=("H", "K", "L"),
        help="of the conventional cell",
    )
    group.add_argument(
        "--thicknesses", type=float, nargs="+", default=(10.0, 15.0, 20.0), help="of the slabs, Å"
    )
    group.add_argument("--vacuum", type=float, default=15.0, help="Å")
    group.add_argument("--shift", type=float, default=0.0, help="of the cut, fraction of a plane spacing")
    what = "what moves in the slabs"
    add_relax_argument(group, "fixed", "positions", default="positions", help=what, fixed="--unrelaxed")
    group.add_argument(
        "--fixed-bulk", dest="relax_bulk", action="store_false", help="take the bulk as it is in the file"
    )
    group.add_argument("--fmax", type=float, default=0.01, help="of the slabs, eV/Å")
    add_output_arguments(parser, "surface/NAME-HKL, NAME from the input's")
    parser.set_defaults(run=run, dtype="float64")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from pathlib import Path

    import ase.io

    from dpa2calc.applications.defects.surface import surface_energy

    atoms = read_structure(args)
    choose_folder(args, "surface", "".join(map(str, args.miller)))
    atoms.calc = make_calculator(args, [atoms])
    result = surface_energy(
        atoms,
        tuple(args.miller),
        thicknesses=args.thicknesses,
        vacuum=args.vacuum,
        shift=args.shift,
        relax=args.relax,
        relax_bulk=args.relax_bulk,
        fmax=args.fmax,
        folder=work_folder(args),
        progress=not args.no_progress,
    )
    report(result, args, "surface")
    ase.io.write(Path(args.out) / "slab.extxyz", result.atoms())
    return 0
