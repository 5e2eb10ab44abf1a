"""`dpa2calc md`: molecular dynamics from a structure file to a trajectory, a log and a figure."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dpa2calc.cli.arguments.freedom import words
from dpa2calc.cli.arguments.output import choose_folder
from dpa2calc.cli.arguments.structures import (
    add_calculator_arguments,
    add_structure_argument,
    make_calculator,
    number_or_ramp,
    read_structure,
    save_figure,
)

EXAMPLE = """\
example: 10 ps of liquid water at 330 K, then 10 ps more
  dpa2calc md water.extxyz --temperature 330 --steps 20000 --head H2O-PBE0TS --out water
  dpa2calc md water.extxyz --temperature 330 --steps 40000 --head H2O-PBE0TS --out water

The folder given by --out holds trajectory.traj, log.csv, restart.npz, result.npz and md.png.
Running again with the same folder goes on from restart.npz to the total number of --steps and
gives the numbers of an uninterrupted run. A ramp is START:END, for example --temperature 300:900.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `md`."""
    parser = subparsers.add_parser(
        "md",
        help="molecular dynamics: NVE, NVT, NPT, ramps, exact restart",
        epilog=EXAMPLE,
    )
    add_structure_argument(parser)
    add_calculator_arguments(parser)
    _add_run_arguments(parser.add_argument_group("run"))
    _add_limit_arguments(parser.add_argument_group("limits that stop the run"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", metavar="FOLDER", help="folder for all files (default: md/NAME, NAME from the input's)"
    )
    output.add_argument("--format", choices=("traj", "extxyz"), default="traj", help="of the trajectory")
    output.add_argument(
        "--trajectory-interval", type=int, metavar="STEPS", help="steps between frames (default: 100)"
    )
    output.add_argument(
        "--log-interval", type=int, metavar="STEPS", help="steps between rows of the log (default: 10)"
    )
    output.add_argument("--overwrite", action="store_true", help="start afresh, replacing files in --out")
    output.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")
    parser.set_defaults(run=run)


def _add_run_arguments(group: Any) -> None:
    group.add_argument(
        "--steps", type=int, required=True, help="total number of steps, earlier runs included"
    )
    group.add_argument("--ensemble", choices=("nve", "nvt", "npt"), help="what is held (default: nvt)")
    group.add_argument(
        "--timestep-fs", "--timestep", type=float, metavar="FS", help="time step (default: 0.5)"
    )
    group.add_argument(
        "--temperature", type=number_or_ramp, metavar="K", help="K, or START:END (default: 300)"
    )
    group.add_argument(
        "--pressure-gpa", "--pressure", type=number_or_ramp, metavar="GPA", help="NPT, GPa (default: 0)"
    )
    group.add_argument("--ramp-steps", type=int, metavar="STEPS", help="length of ramps (default: --steps)")
    group.add_argument(
        "--thermostat", choices=("langevin", "bussi", "nose-hoover"), help="NVT (default: langevin)"
    )
    group.add_argument(
        "--thermostat-time-fs", type=float, metavar="FS", help="relaxation time (default: 100)"
    )
    group.add_argument("--barostat-time-fs", type=float, metavar="FS", help="relaxation time (default: 1000)")
    group.add_argument(
        "--cell-motion", **words("--cell-motion", "volume", "axes", "cell"), help="NPT (default: volume)"
    )
    group.add_argument(
        "--velocities",
        choices=("auto", "keep", "new"),
        help="of the structure file, or drawn (default: auto)",
    )
    group.add_argument("--seed", type=int, help="of velocities and thermostat (default: 0)")


def _add_limit_arguments(group: Any) -> None:
    group.add_argument("--temperature-limit", type=float, metavar="K", help="default: ten times the target")
    group.add_argument("--force-limit", type=float, metavar="EV_PER_A", help="on one atom (default: 100)")
    group.add_argument("--step-limit", type=float, metavar="A", help="displacement in one step (default: 1)")
    group.add_argument("--min-distance", type=float, metavar="A", help="of any two atoms")
    group.add_argument(
        "--lost-distance", type=float, metavar="A", help="to the nearest neighbour (default: 10)"
    )
    group.add_argument("--committee-limit", type=float, metavar="EV_PER_A", help="spread of --committee")


def run(args: argparse.Namespace) -> int:
    """Run the verb; 0 when the run reached its steps, 1 when a limit stopped it."""
    from dpa2calc.applications import MDConfig, run_md

    given = {name: getattr(args, name, None) for name in MDConfig.__dataclass_fields__}
    config = MDConfig(**{name: value for name, value in given.items() if value is not None})
    atoms = read_structure(args)
    folder = choose_folder(args, "md")
    atoms.calc = make_calculator(args, [atoms])
    result = run_md(
        atoms,
        config,
        trajectory=folder / f"trajectory.{args.format}",
        log=folder / "log.csv",
        restart=folder / "restart.npz",
        overwrite=args.overwrite,
        progress=not args.no_progress,
    )
    result.save(folder / "result.npz")
    figure = save_figure(result, folder / "md.png")
    print(result.summary())
    print(f"{'figure':18s} {figure}")
    if result.status != "finished":
        print(args.say(result.reason), file=sys.stderr)
        return 1
    return 0
