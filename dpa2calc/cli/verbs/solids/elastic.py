"""`dpa2calc elastic`: elastic constants from a structure file to numbers and a figure."""

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
example: elastic tensor of silicon, cell relaxed first
  dpa2calc elastic Si.cif --head mlearn-PBE --out Si-elastic

The folder holds elastic.npz (ElasticConstants.load), elastic.png, and work/ from which an interrupted run
resumes.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `elastic`."""
    parser = subparsers.add_parser(
        "elastic",
        help="elastic constants: full tensor, stability, averages",
        epilog=EXAMPLE,
    )
    add_structure_argument(parser)
    add_calculator_arguments(parser)
    group = parser.add_argument_group("elastic constants")
    group.add_argument("--strains", type=float, nargs="+", default=[0.005, 0.01], help="magnitudes")
    add_relax_argument(group, "fixed", "cell", default="cell", help="what moves before straining")
    group.add_argument(
        "--clamped-ions",
        dest="relax_ions",
        action="store_false",
        help="do not relax positions in strained cells",
    )
    group.add_argument("--fmax", type=float, default=1e-4, help="of the relaxations, eV/Å")
    add_output_arguments(parser, "elastic/NAME, NAME from the input's")
    parser.set_defaults(run=run, dtype="float64")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from dpa2calc.applications.crystals.elastic import elastic_constants

    atoms = read_structure(args)
    choose_folder(args, "elastic")
    atoms.calc = make_calculator(args, [atoms])
    result = elastic_constants(
        atoms,
        strains=args.strains,
        relax=args.relax,
        relax_ions=args.relax_ions,
        fmax=args.fmax,
        folder=work_folder(args),
        progress=not args.no_progress,
    )
    report(result, args, "elastic")
    return 0
