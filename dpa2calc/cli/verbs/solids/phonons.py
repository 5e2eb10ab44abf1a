"""`dpa2calc phonons`: phonons, their convergence, or the quasi-harmonic approximation."""

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
example: bands and density of states of copper; is the supercell large enough; thermal expansion
  dpa2calc phonons Cu.cif --head mlearn-PBE --out Cu-phonons
  dpa2calc phonons Cu.cif --head mlearn-PBE --out Cu-phonons --convergence
  dpa2calc phonons Cu.cif --head mlearn-PBE --out Cu-phonons --quasi-harmonic

The folder holds phonons.npz (Phonons.load), phonons.png and force_constants in phonopy.yaml (for phonopy
itself), or convergence.npz/.png, or quasi_harmonic.npz/.png; and work/ from which an interrupted run resumes.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `phonons`."""
    parser = subparsers.add_parser(
        "phonons",
        help="phonons: bands, density of states, thermal properties, quasi-harmonic",
        epilog=EXAMPLE,
    )
    add_structure_argument(parser)
    add_calculator_arguments(parser)
    group = parser.add_argument_group("phonons")
    what = group.add_mutually_exclusive_group()
    what.add_argument("--convergence", action="store_true", help="vary supercell and displacement")
    what.add_argument("--quasi-harmonic", action="store_true", help="thermal expansion from several volumes")
    add_relax_argument(group, "fixed", "positions", "cell", default="cell", help="what moves first")
    group.add_argument("--min-length", type=float, default=12.0, help="of the supercell, Å")
    group.add_argument("--supercell", type=int, nargs=3, metavar=("A", "B", "C"), help="repeats instead")
    group.add_argument("--displacement", type=float, default=0.01, help="Å")
    group.add_argument("--fmax", type=float, default=1e-4, help="largest force allowed, eV/Å")
    group.add_argument("--mesh", type=float, default=60.0, help="q-point mesh as a length, Å")
    group.add_argument("--max-temperature", type=float, default=1000.0, help="K, in steps of 10")
    add_output_arguments(parser, "phonons/NAME, NAME from the input's")
    names = {"min_lengths": "--min-length", "temperatures": "--max-temperature"}
    parser.set_defaults(run=run, dtype="float64", python_names=names)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    import numpy as np

    from dpa2calc.applications.crystals.phonon_convergence import phonon_convergence
    from dpa2calc.applications.crystals.phonons import phonons
    from dpa2calc.applications.crystals.quasi_harmonic import quasi_harmonic

    atoms = read_structure(args)
    choose_folder(args, "phonons")
    atoms.calc = make_calculator(args, [atoms])
    common: dict[str, Any] = {
        "fmax": args.fmax,
        "mesh": args.mesh,
        "folder": work_folder(args),
        "progress": not args.no_progress,
    }
    if args.convergence:
        lengths = [round(args.min_length * factor, 3) for factor in (2 / 3, 1.0, 4 / 3)]
        report(
            phonon_convergence(atoms, min_lengths=lengths, relax=args.relax, **common), args, "convergence"
        )
        return 0
    common.update(min_length=args.min_length, supercell=args.supercell, displacement=args.displacement)
    common["temperatures"] = np.arange(0.0, args.max_temperature + 5.0, 10.0)
    if args.quasi_harmonic:
        report(quasi_harmonic(atoms, **common), args, "quasi_harmonic")
        return 0
    result = phonons(atoms, relax=args.relax, **common)
    report(result, args, "phonons")
    result.to_phonopy().save(f"{args.out}/phonopy.yaml", settings={"force_constants": True})
    return 0
