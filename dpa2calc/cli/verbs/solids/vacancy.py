"""`dpa2calc vacancy`: vacancy formation energy from a crystal file to a number and a figure."""

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
examples: copper; the oxygen (atom 4) of an oxide, with the energy of O in its reservoir
  dpa2calc vacancy Cu.cif --head mlearn-PBE --out Cu-vacancy
  dpa2calc vacancy MgO.cif --head Inorganic-PBE --site 4 --chemical-potential O=-4.9

The folder holds vacancy.npz (VacancyFormation.load), vacancy.png, defect.extxyz (the largest cell), and
work/ from which an interrupted run resumes.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `vacancy`."""
    parser = subparsers.add_parser(
        "vacancy",
        help="vacancy formation energy, from supercells of several sizes",
        epilog=EXAMPLE,
    )
    add_structure_argument(parser)
    add_calculator_arguments(parser)
    group = parser.add_argument_group("vacancy")
    group.add_argument("--site", type=int, default=0, help="number of the atom that is taken out")
    group.add_argument(
        "--lengths",
        dest="min_lengths",
        type=float,
        nargs="+",
        default=(8.0, 11.0, 14.0),
        help="of the supercells, Å",
    )
    group.add_argument(
        "--chemical-potential", type=_potential, nargs="+", metavar="ELEMENT=EV", help="compounds need it"
    )
    what = "what moves around the vacancy"
    add_relax_argument(group, "fixed", "positions", default="positions", help=what, fixed="--unrelaxed")
    group.add_argument(
        "--fixed-bulk", dest="relax_bulk", action="store_false", help="take the crystal as it is in the file"
    )
    group.add_argument("--fmax", type=float, default=1e-3, help="of the relaxation, eV/Å")
    add_output_arguments(parser, "vacancy/NAME-SITE, NAME from the input's")
    parser.set_defaults(run=run, dtype="float64")


def _potential(text: str) -> tuple[str, float]:
    element, _, value = text.partition("=")
    try:
        return element, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give ELEMENT=EV, for example O=-4.9") from None


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from pathlib import Path

    import ase.io

    from dpa2calc.applications.defects.vacancy import vacancy_formation_energy

    atoms = read_structure(args)
    choose_folder(args, "vacancy", str(args.site))
    atoms.calc = make_calculator(args, [atoms])
    result = vacancy_formation_energy(
        atoms,
        site=args.site,
        min_lengths=args.min_lengths,
        chemical_potential=dict(args.chemical_potential) if args.chemical_potential else None,
        relax=args.relax,
        relax_bulk=args.relax_bulk,
        fmax=args.fmax,
        folder=work_folder(args),
        progress=not args.no_progress,
    )
    report(result, args, "vacancy")
    ase.io.write(Path(args.out) / "defect.extxyz", result.atoms())
    return 0
