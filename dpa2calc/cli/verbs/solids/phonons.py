"""`dpa2calc phonons`: phonons, their convergence, or the quasi-harmonic approximation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpa2calc.cli.arguments.application import (
    add_application_arguments,
    chosen,
    prepared_atoms,
    refuse_idle,
    report,
)
from dpa2calc.cli.arguments.freedom import add_relax_argument
from dpa2calc.errors import ConfigError
from dpa2calc.files.atomic import atomic_path

if TYPE_CHECKING:
    from dpa2calc.files.results import Result

EXAMPLE = """\
example: bands and density of states of copper; is the supercell large enough; thermal expansion
  dpa2calc phonons Cu.cif --head mlearn-PBE --out Cu-phonons
  dpa2calc phonons Cu.cif --head mlearn-PBE --out Cu-phonons --convergence
  dpa2calc phonons Cu.cif --head mlearn-PBE --out Cu-phonons --quasi-harmonic

The folder holds phonons.npz (Phonons.load), phonons.png and force_constants in phonopy.yaml (for phonopy
itself), or convergence.npz/.png, or quasi_harmonic.npz/.png; and work/ from which an interrupted run resumes.
"""
TABLE = "a row a temperature, or a supercell with --convergence"
_HOTTEST = 1e5  # K
# columns of the tables -> fields of the results
_HARMONIC = {
    "temperature_K": "temperatures",
    "free_energy_eV_per_atom": "free_energy",
    "entropy_eV_per_K_per_atom": "entropy",
    "heat_capacity_eV_per_K_per_atom": "heat_capacity",
}
_QUASI_HARMONIC = {
    "temperature_K": "temperatures",
    "volume_A3_per_atom": "volume",
    "thermal_expansion_per_K": "thermal_expansion",
    "bulk_modulus_GPa": "bulk_modulus",
    "gibbs_eV_per_atom": "gibbs",
    "heat_capacity_p_eV_per_K_per_atom": "heat_capacity_p",
    "heat_capacity_v_eV_per_K_per_atom": "heat_capacity_v",
    "entropy_eV_per_K_per_atom": "entropy",
    "grueneisen": "grueneisen",
}
_CONVERGENCE = {
    "kind": "kind",
    "min_length_A": "min_lengths",
    "displacement_A": "displacements",
    "n_supercell_atoms": "n_supercell_atoms",
    "image_distance_A": "image_distances",
    "highest_THz": "highest",
    "lowest_THz": "lowest",
    "zero_point_energy_eV_per_atom": "zero_point_energy",
    "heat_capacity_eV_per_K_per_atom": "heat_capacity",
    "rms_difference_THz": "rms_difference",
    "max_difference_THz": "max_difference",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, _ = add_application_arguments(
        parser, "phonons", "phonons/NAME, NAME from the input's", several=True
    )
    what = group.add_mutually_exclusive_group()
    what.add_argument("--convergence", action="store_true", help="vary supercell and displacement")
    what.add_argument("--quasi-harmonic", action="store_true", help="thermal expansion from several volumes")
    add_relax_argument(group, "fixed", "positions", "cell", default="cell", help="what moves first")
    add = group.add_argument
    add("--min-length", type=float, default=12.0, help="of the supercell, Å")
    add("--supercell", type=int, nargs=3, metavar=("A", "B", "C"), help="repeats instead")
    add(
        "--method", choices=("displacements", "hessian"), default="displacements",
        help="force constants by displacements, or from the exact Hessian of the supercell",
    )  # fmt: skip
    add("--displacement", type=float, default=0.01, help="Å")
    add("--fmax", type=float, default=1e-4, help="largest force allowed, eV/Å")
    add("--mesh", type=float, default=60.0, help="q-point mesh as a length, Å")
    add("--max-temperature", type=float, default=1000.0, help="K, in steps of 10")
    names = {"min_lengths": "--min-length", "temperatures": "--max-temperature"}
    parser.set_defaults(dtype="float64", python_names=names)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    import numpy as np

    from dpa2calc.applications.crystals.phonon_convergence import phonon_convergence
    from dpa2calc.applications.crystals.phonons import phonons
    from dpa2calc.applications.crystals.quasi_harmonic import quasi_harmonic

    if args.method == "hessian" and (args.convergence or args.quasi_harmonic):
        other = "--convergence" if args.convergence else "--quasi-harmonic"
        raise ConfigError(f"{other} works by displacements; leave --method hessian out")
    if args.convergence:
        refuse_idle(args, "with --convergence", "supercell", "displacement", "max_temperature")
    if args.quasi_harmonic:
        refuse_idle(args, "with --quasi-harmonic, which relaxes at each volume", "relax")
    if args.supercell:
        refuse_idle(args, "with --supercell", "min_length")
    if args.method == "hessian":
        refuse_idle(args, "with --method hessian", "displacement")
    if not 0.0 <= args.max_temperature <= _HOTTEST:
        raise ConfigError(
            f"--max-temperature is {args.max_temperature:g}; give a temperature from 0 to {_HOTTEST:g} K"
        )
    atoms = prepared_atoms(args, "phonons")
    if args.convergence:
        lengths = [round(args.min_length * factor, 3) for factor in (2 / 3, 1.0, 4 / 3)]
        options = chosen(args, "fmax", "mesh", "relax")
        found = phonon_convergence(atoms, min_lengths=lengths, **options)
        return report(found, args, "convergence", _columns(found, _CONVERGENCE))
    options = chosen(args, "fmax", "mesh", "min_length", "supercell", "displacement")
    options["temperatures"] = np.arange(0.0, args.max_temperature + 5.0, 10.0)
    if args.quasi_harmonic:
        thermal = quasi_harmonic(atoms, **options)
        return report(thermal, args, "quasi_harmonic", _columns(thermal, _QUASI_HARMONIC))
    result = phonons(atoms, relax=args.relax, method=args.method, **options)
    report(result, args, "phonons", _columns(result, _HARMONIC))
    with atomic_path(Path(args.out) / "phonopy.yaml") as temporary:
        result.to_phonopy().save(temporary, settings={"force_constants": True})
    return 0


def _columns(result: Result, names: dict[str, str]) -> dict[str, Any]:
    return {column: getattr(result, field) for column, field in names.items()}
