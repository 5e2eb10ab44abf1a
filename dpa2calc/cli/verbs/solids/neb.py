"""`dpa2calc neb`: minimum-energy path between two structure files, with barrier, images and figure."""

from __future__ import annotations

import argparse
from pathlib import Path

from dpa2calc.cli.arguments.application import add_application_arguments, chosen, prepared_atoms, report
from dpa2calc.cli.arguments.output import stem
from dpa2calc.cli.arguments.structures import read_frame

EXAMPLE = """\
example: barrier between two relaxed structures with the same atoms in the same order
  dpa2calc neb initial.extxyz --final final.extxyz --head mlearn-PBE --images 7 --out hop

The folder holds neb.npz (NudgedElasticBand.load), neb.png, path.extxyz with the images, and work/ from which
an interrupted run resumes.
"""
TABLE = "a row an image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--final", required=True, metavar="FILE", help="the other end of the path")
    group, _ = add_application_arguments(parser, "elastic band", "neb/INITIAL-FINAL, names from the input's")
    add = group.add_argument
    add("--images", dest="n_images", type=int, default=7, metavar="N", help="ends included")
    add("--interpolation", choices=("idpp", "linear"), default="idpp", help="of the first guess")
    add("--fixed-ends", dest="relax_ends", action="store_false", help="do not relax the ends")
    add("--no-climb", dest="climb", action="store_false", help="no climbing image")
    add("--fmax", type=float, default=0.02, help="largest force at convergence, eV/Å")
    add("--spring", type=float, default=1.0, help="eV/Å²")
    add("--max-steps", type=int, default=1000, help="of the optimiser")


def run(args: argparse.Namespace) -> int:
    """Run the verb; 1 when the band did not converge."""
    from dpa2calc.applications.defects.neb import nudged_elastic_band
    from dpa2calc.files.structures import write_structures

    final = read_frame(args.final, option="")
    initial = prepared_atoms(args, "neb", stem(args.final))
    if args.repeat:
        final = final.repeat(args.repeat)
    names = ("n_images", "interpolation", "relax_ends", "climb", "fmax", "spring", "max_steps")
    result = nudged_elastic_band(initial, final, **chosen(args, *names))
    table = {"path_A": result.path, "energy_eV": result.energies, "slope_eV_per_A": result.slopes}
    report(result, args, "neb", table)
    write_structures(Path(args.out) / "path.extxyz", result.images())
    return 0 if result.converged else 1
