"""`dpa2calc eos`: equation of state from a structure file to numbers and a figure."""

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
example: volume and bulk modulus of copper
  dpa2calc eos Cu.cif --head mlearn-PBE --out Cu-eos

The folder holds eos.npz (EquationOfState.load), eos.png, and work/ from which an interrupted run resumes.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `eos`."""
    parser = subparsers.add_parser(
        "eos",
        help="equation of state: equilibrium volume, bulk modulus",
        epilog=EXAMPLE,
    )
    add_structure_argument(parser)
    add_calculator_arguments(parser)
    group = parser.add_argument_group("equation of state")
    group.add_argument("--range", type=float, default=0.03, help="largest linear strain, both signs")
    group.add_argument("--points", type=int, default=11, help="number of volumes")
    group.add_argument(
        "--form",
        choices=("birch-murnaghan", "vinet", "murnaghan"),
        default="birch-murnaghan",
        help="of the fit",
    )
    what = "what moves at each volume"
    add_relax_argument(group, "fixed", "positions", "shape", default="shape", help=what)
    group.add_argument("--fmax", type=float, default=1e-4, help="of the relaxations, eV/Å")
    add_output_arguments(parser, "eos/NAME, NAME from the input's")
    names = {"strains": "--range and --points"}
    parser.set_defaults(run=run, dtype="float64", python_names=names)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    import numpy as np

    from dpa2calc.applications.crystals.eos import equation_of_state

    atoms = read_structure(args)
    choose_folder(args, "eos")
    atoms.calc = make_calculator(args, [atoms])
    result = equation_of_state(
        atoms,
        strains=np.linspace(-args.range, args.range, args.points),
        form=args.form,
        relax=args.relax,
        fmax=args.fmax,
        folder=work_folder(args),
        progress=not args.no_progress,
    )
    report(result, args, "eos")
    return 0
