"""`dpa2calc vacancy`: vacancy formation energy from a crystal file to a number and a figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from dpa2calc.cli.arguments.application import (
    add_application_arguments,
    chosen,
    prepared_atoms,
    refuse_idle,
    report,
)
from dpa2calc.cli.arguments.freedom import add_relax_argument

EXAMPLE = """\
examples: copper; the oxygen (atom 4) of an oxide, with the energy of O in its reservoir
  dpa2calc vacancy Cu.cif --head mlearn-PBE --out Cu-vacancy
  dpa2calc vacancy MgO.cif --head Inorganic-PBE --site 4 --chemical-potential O=-4.9

The folder holds vacancy.npz (VacancyFormation.load), vacancy.png, defect.extxyz (the largest cell), and
work/ from which an interrupted run resumes.
"""
TABLE = "a row a supercell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, _ = add_application_arguments(parser, "vacancy", "vacancy/NAME-SITE, NAME from the input's")
    add = group.add_argument
    add("--site", type=int, default=0, help="number of the atom that is taken out")
    text = "of the supercells, Å"
    add("--lengths", dest="min_lengths", type=float, nargs="+", default=(8.0, 11.0, 14.0), help=text)
    add("--chemical-potential", type=_potential, nargs="+", metavar="ELEMENT=EV", help="compounds need it")
    what = "what moves around the vacancy"
    add_relax_argument(group, "fixed", "positions", default="positions", help=what, fixed="--unrelaxed")
    add("--fixed-bulk", dest="relax_bulk", action="store_false", help="take the crystal as it is in the file")
    add("--fmax", type=float, default=1e-3, help="of the relaxation, eV/Å")
    parser.set_defaults(dtype="float64")


def _potential(text: str) -> tuple[str, float]:
    element, _, value = text.partition("=")
    try:
        return element, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give ELEMENT=EV, for example O=-4.9") from None


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from dpa2calc.applications.defects.vacancy import vacancy_formation_energy
    from dpa2calc.files.structures import write_structures

    if args.relax == "fixed" and not args.relax_bulk:
        refuse_idle(args, "where nothing is relaxed", "fmax")
    atoms = prepared_atoms(args, "vacancy", str(args.site))
    potential = dict(args.chemical_potential) if args.chemical_potential else None
    options = chosen(args, "site", "min_lengths", "relax", "relax_bulk", "fmax")
    result = vacancy_formation_energy(atoms, chemical_potential=potential, **options)
    table = {
        "n_atoms": result.n_atoms,
        "image_distance_A": result.image_distances,
        "energy_eV": result.energies,
        "unrelaxed_energy_eV": result.unrelaxed_energies,
    }
    report(result, args, "vacancy", table)
    write_structures(Path(args.out) / "defect.extxyz", result.atoms())
    return 0
