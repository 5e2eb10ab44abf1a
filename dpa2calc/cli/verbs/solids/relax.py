"""`dpa2calc relax`: from a structure file to the relaxed structure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dpa2calc.cli.arguments.application import add_application_arguments, refuse_idle
from dpa2calc.cli.arguments.freedom import add_words
from dpa2calc.cli.arguments.output import structure_name, without_ending
from dpa2calc.cli.arguments.structures import make_calculator, read_structure
from dpa2calc.cli.arguments.written import write_result
from dpa2calc.files.figures import save_figure

EXAMPLE = """\
example: positions and cell of a crystal, its space group kept
  dpa2calc relax cu.cif --head mlearn-PBE --relax cell --keep-symmetry --out cu-relaxed.cif

--out names the relaxed structure (cu-relaxed.extxyz when left out); its format follows the name (cif, extxyz,
vasp, xyz ...). Beside it are written NAME.relax.npz (the result), NAME.relax.traj (all steps) and
NAME.relax.png, where NAME is that of --out without its ending. Running again resumes from the last step,
unless --overwrite is given.
"""
TABLE = "a row a step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, output = add_application_arguments(parser, "relaxation", "", several=True)
    add = group.add_argument
    add("--fmax", type=float, default=0.01, metavar="EV_PER_A", help="largest force left")
    allowed = ("positions", "volume", "axes", "shape", "cell")
    text = "what moves: positions alone, or with the cell's volume, axes, shape, or the whole cell"
    add_words(group, "--relax", "--cell", allowed=allowed, default="positions", help=text)
    add("--smax-gpa", type=float, default=0.02, metavar="GPA", help="largest stress left")
    add("--pressure-gpa", "--pressure", type=float, default=0.0, metavar="GPA", help="of the cell")
    kinds = ("auto", "bfgs", "lbfgs", "fire", "fire2", "bfgs-linesearch", "gpmin")
    add("--optimizer", choices=kinds, default="auto", help="auto: BFGS up to 200 atoms, then FIRE")
    add("--keep-symmetry", action="store_true", help="keep the space group (needs spglib)")
    add("--symprec", type=float, default=0.01, metavar="A", help="to find the space group")
    add("--max-steps", type=int, default=500, help="of the optimiser")
    text = "stop where an atom's energy is less well known"
    add("--uncertainty-limit", type=float, metavar="EV", help=text)
    output.add_argument("--out", metavar="FILE", help="default: NAME-relaxed.extxyz, NAME from the input's")
    output.add_argument("--overwrite", action="store_true", help="start afresh, replacing files")


def run(args: argparse.Namespace) -> int:
    """Run the verb; 0 when converged, 1 when not."""
    from ase import units

    from dpa2calc.applications import relax
    from dpa2calc.files.structures import check_structure_file, write_structures

    if args.relax == "positions":
        refuse_idle(args, "where the cell does not change (--relax cell lets it)", "smax_gpa")
    if not args.keep_symmetry:
        refuse_idle(args, "without --keep-symmetry", "symprec")
    atoms = read_structure(args)
    target = Path(args.out or f"{structure_name(args)}-relaxed.extxyz")
    beside = target.with_name(f"{without_ending(target.name)}.relax")
    check_structure_file(target, atoms)
    atoms.calc = make_calculator(args, [atoms])
    names = ["fmax", "relax", "smax_gpa", "pressure_gpa", "optimizer"]
    names += ["keep_symmetry", "symprec", "max_steps", "uncertainty_limit"]
    result = relax(
        atoms,
        **{name: getattr(args, name) for name in names},
        trajectory=beside.with_name(f"{beside.name}.traj"),
        overwrite=args.overwrite,
        progress=not args.no_progress,
    )
    relaxed = result.atoms()
    relaxed.set_constraint(atoms.constraints)
    print(result.summary())  # first: it is there if the disk is full
    write_structures(target, relaxed)
    result.save(beside.with_name(f"{beside.name}.npz"))
    table = {
        "step": result.step,
        "enthalpy_eV": result.enthalpy,
        "max_force_eV_per_A": result.max_force,
        "stress_deviation_GPa": result.stress_deviation / units.GPa,
        "volume_A3": result.volume,
    }
    write_result(args, result, table)
    figure = save_figure(beside.with_name(f"{beside.name}.png"), result.plot)
    print(f"{'structure':18s} {target}")
    print(f"{'figure':18s} {figure}")
    if not result.converged:
        print(args.say(result.reason), file=sys.stderr)
    return 0 if result.converged else 1
