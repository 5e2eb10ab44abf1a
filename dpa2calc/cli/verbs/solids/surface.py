"""`dpa2calc surface`: surface energy from a bulk structure file to a number and a figure."""

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
example: the (111) face of copper, from the file of its bulk crystal
  dpa2calc surface Cu.cif --head mlearn-PBE --miller 1 1 1 --out Cu-111

The folder holds surface.npz (SurfaceEnergy.load), surface.png, slab.extxyz (the thickest slab), and work/
from which an interrupted run resumes.
"""
TABLE = "a row a slab"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, _ = add_application_arguments(parser, "surface", "surface/NAME-HKL, NAME from the input's")
    add = group.add_argument
    text = "of the conventional cell"
    add("--miller", type=int, nargs=3, default=(1, 1, 1), metavar=("H", "K", "L"), help=text)
    add("--thicknesses", type=float, nargs="+", default=(10.0, 15.0, 20.0), help="of the slabs, Å")
    add("--vacuum", type=float, default=15.0, help="Å")
    add("--shift", type=float, default=0.0, help="of the cut, fraction of a plane spacing")
    what = "what moves in the slabs"
    add_relax_argument(group, "fixed", "positions", default="positions", help=what, fixed="--unrelaxed")
    add("--fixed-bulk", dest="relax_bulk", action="store_false", help="take the bulk as it is in the file")
    add("--fmax", type=float, default=0.01, help="of the slabs, eV/Å")
    parser.set_defaults(dtype="float64")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from dpa2calc.applications.defects.surface import surface_energy
    from dpa2calc.files.structures import write_structures

    if args.relax == "fixed" and not args.relax_bulk:
        refuse_idle(args, "where nothing is relaxed", "fmax")
    atoms = prepared_atoms(args, "surface", "".join(map(str, args.miller)))
    options = chosen(args, "thicknesses", "vacuum", "shift", "relax", "relax_bulk", "fmax")
    result = surface_energy(atoms, tuple(args.miller), **options)
    table = {
        "thickness_A": result.thickness,
        "layers": result.layers,
        "n_atoms": result.n_atoms,
        "slab_energy_eV": result.slab_energies,
        "unrelaxed_slab_energy_eV": result.unrelaxed_slab_energies,
        "surface_energy_J_per_m2": result.direct,
        "unrelaxed_surface_energy_J_per_m2": result.unrelaxed_direct,
    }
    report(result, args, "surface", table)
    write_structures(Path(args.out) / "slab.extxyz", result.atoms())
    return 0
