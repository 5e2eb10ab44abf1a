"""`dpa2calc eos`: equation of state from a structure file to numbers and a figure."""

from __future__ import annotations

import argparse

from dpa2calc.cli.arguments.application import (
    add_application_arguments,
    chosen,
    prepared_atoms,
    refuse_idle,
    report,
)
from dpa2calc.cli.arguments.freedom import add_relax_argument
from dpa2calc.errors import ConfigError

EXAMPLE = """\
example: volume and bulk modulus of copper
  dpa2calc eos Cu.cif --head mlearn-PBE --out Cu-eos

The folder holds eos.npz (EquationOfState.load), eos.png, and work/ from which an interrupted run resumes.
"""
TABLE = "a row a volume"
_MOST_POINTS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, _ = add_application_arguments(
        parser, "equation of state", "eos/NAME, NAME from the input's", several=True
    )
    add = group.add_argument
    add("--range", type=float, default=0.03, help="largest linear strain, both signs")
    add("--points", type=int, default=11, help="number of volumes")
    text = "of the fit"
    add("--form", choices=("birch-murnaghan", "vinet", "murnaghan"), default="birch-murnaghan", help=text)
    what = "what moves at each volume"
    add_relax_argument(group, "fixed", "positions", "shape", default="shape", help=what)
    add("--fmax", type=float, default=1e-4, help="of the relaxations, eV/Å")
    names = {"strains": "--range and --points"}
    parser.set_defaults(dtype="float64", python_names=names)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    import numpy as np

    from dpa2calc.applications.crystals.eos import equation_of_state

    if args.points > _MOST_POINTS:
        raise ConfigError(f"--points is {args.points}; it must be 5 to {_MOST_POINTS}")
    if args.relax == "fixed":
        refuse_idle(args, "with --relax fixed", "fmax")
    strains = np.linspace(-args.range, args.range, max(args.points, 0))
    atoms = prepared_atoms(args, "eos")
    result = equation_of_state(atoms, strains=strains, **chosen(args, "form", "relax", "fmax"))
    table = {"volume_A3": result.volumes, "energy_eV": result.energies, "pressure_GPa": result.pressures}
    return report(result, args, "eos", table)
