"""`dpa2calc vibrations`: vibrations of a molecule from a structure file to frequencies and a figure."""

from __future__ import annotations

import argparse
import sys
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
examples: a relaxed molecule and its free energy; an adsorbate (atoms 36 and 37) on a slab that stays put
  dpa2calc vibrations molecule.xyz --head H2O-PBE0TS --temperature 298.15 --out molecule-vibrations
  dpa2calc vibrations slab.extxyz --head Inorganic-PBE --atoms 36 37

The folder holds vibrations.npz (Vibrations.load), vibrations.png, mode-*.extxyz (a movie of each of the
lowest modes), and work/ from which an interrupted run resumes.
"""
TABLE = "a row a mode"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, _ = add_application_arguments(parser, "vibrations", "vibrations/NAME, NAME from the input's")
    add = group.add_argument
    add(
        "--atoms", dest="indices", type=int, nargs="+", metavar="INDEX",
        help="only these move (default: all, or those that the file's constraints leave free)",
    )  # fmt: skip
    what = "first, or fixed: refuse forces above --fmax"
    add_relax_argument(group, "fixed", "positions", default="positions", help=what, fixed="--fixed")
    add("--displacement", type=float, help="Å, of finite differences instead of the exact Hessian")
    add("--fmax", type=float, default=1e-3, help="largest force at rest, eV/Å")
    add("--temperature", type=float, help="also give the free energy at this one, K")
    add("--pressure", type=float, default=1.01325e5, help="of the ideal gas, Pa")
    add("--symmetry-number", type=int, default=1, help="rotational")
    add("--spin", type=float, default=0.0, help="total spin S")
    add("--movies", type=int, default=6, help="modes written as frames")
    parser.set_defaults(dtype="float64")


def run(args: argparse.Namespace) -> int:
    """Run the verb; 1 when modes are imaginary."""
    from dpa2calc.applications.molecules.vibrations import free_atoms, vibrations
    from dpa2calc.files.structures import write_structures

    gas = ("pressure", "symmetry_number", "spin")
    if args.temperature is None:
        refuse_idle(args, "without --temperature", *gas)
    atoms = prepared_atoms(args, "vibrations")
    some = args.indices is not None or free_atoms(atoms) is not None
    if some:
        refuse_idle(args, "where some atoms move, whose free energy is harmonic", *gas)
    if args.indices is None and not atoms.cell.any():
        atoms.pbc = False  # a molecule; some formats say otherwise
    result = vibrations(atoms, **chosen(args, "indices", "relax", "displacement", "fmax"))
    n_modes = len(result.frequencies)
    table = {"mode": range(1, n_modes + 1), "frequency_per_cm": result.frequencies}
    free, kind = None, "Helmholtz, harmonic" if some else "Gibbs, ideal gas"
    if args.temperature is not None and (result.frequencies > 0.0).all():
        free = result.free_energy(args.temperature, **{name: getattr(args, name) for name in gas})
    more = {"temperature_K": args.temperature, "free_energy_eV": free, "free_energy_kind": kind}
    report(result, args, "vibrations", table, None if free is None else more)
    for k in range(min(args.movies, n_modes)):
        write_structures(Path(args.out) / f"mode-{k + 1}.extxyz", result.mode_frames(k))
    if free is not None:
        print(f"free energy at {args.temperature:g} K ({kind}): {free:.4f} eV")
    elif args.temperature is not None or result.n_imaginary:
        reason = f"{result.n_imaginary} modes are imaginary, so this is no minimum"
        if not result.n_imaginary:
            reason = "a mode is zero, so there is no free energy"
        print(args.say(f"{reason}; relax the structure further"), file=sys.stderr)
        return 1
    return 0
