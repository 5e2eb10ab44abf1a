"""`dpa2calc phase-transition`: heat and cool a crystal and find where it transforms."""

from __future__ import annotations

import argparse
from typing import Any

from dpa2calc.cli.arguments.freedom import words
from dpa2calc.cli.arguments.output import choose_folder
from dpa2calc.cli.arguments.structures import (
    add_calculator_arguments,
    add_structure_argument,
    make_calculator,
    read_structure,
    save_figure,
)
from dpa2calc.errors import ConfigError

EXAMPLE = """\
example: PbTiO3 from 300 to 1000 K in steps of 50 K and back, 20 ps each
  dpa2calc phase-transition PbTiO3.cif --head FerroEle --repeat 4 4 4 --per-cell 4 4 4 \\
      --temperatures 300:1000:50 --picoseconds 20 --centre Ti --out pto

The folder given by --out holds scan.npz, the figures order.png, lattice.png and heat-capacity.png, and
the trajectories, logs and restart files of all stages; a scan that was stopped goes on.
"""


def add_parser(subparsers: Any) -> None:
    """Add the verb `phase-transition`."""
    parser = subparsers.add_parser(
        "phase-transition",
        help="temperature scan up and down, transition temperature",
        epilog=EXAMPLE,
    )
    add_structure_argument(parser)
    add_calculator_arguments(parser)
    group = parser.add_argument_group("scan")
    group.add_argument(
        "--temperatures", required=True, metavar="FIRST:LAST:STEP", help="K, or a list 300,350,..."
    )
    group.add_argument("--picoseconds", type=float, default=10.0, metavar="PS", help="length of a stage")
    group.add_argument("--equilibration", type=float, default=0.4, help="fraction left out")
    group.add_argument("--heating-only", dest="cooling", action="store_false", help="do not go back down")
    group.add_argument(
        "--pressure-gpa", "--pressure", type=float, default=0.0, metavar="GPA", help="of the cell"
    )
    group.add_argument(
        "--cell-motion",
        **words("--cell-motion", "volume", "axes", "cell"),
        default="cell",
        help="what of the cell moves",
    )
    group.add_argument("--timestep-fs", "--timestep", type=float, default=1.0, metavar="FS", help="time step")
    group.add_argument(
        "--per-cell",
        dest="repeats",
        type=int,
        nargs=3,
        default=(1, 1, 1),
        metavar=("A", "B", "C"),
        help="unit cells along the cell vectors of the supercell",
    )
    group.add_argument("--centre", metavar="ELEMENTS", help="follow these off their cage: Ti, or Ti+Nb+Mg")
    group.add_argument("--cage", default="O", metavar="ELEMENT", help="atoms of the cage")
    group.add_argument("--members", dest="n_members", type=int, default=6, help="atoms in a cage")
    group.add_argument("--sample-interval", type=int, default=20, metavar="STEPS", help="between frames")
    group.add_argument("--seed", type=int, default=0, help="of velocities and thermostat")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out",
        metavar="FOLDER",
        help="folder for all files (default: phase-transition/NAME, NAME from the input's)",
    )
    output.add_argument("--no-progress", action="store_true", help="no progress bar on stderr")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from dpa2calc.applications import phase_transition

    temperatures = _temperatures(args.temperatures)
    atoms = read_structure(args)
    folder = choose_folder(args, "phase-transition")
    atoms.calc = make_calculator(args, [atoms])
    result = phase_transition(
        atoms,
        temperatures,
        picoseconds=args.picoseconds,
        equilibration=args.equilibration,
        cooling=args.cooling,
        pressure_gpa=args.pressure_gpa,
        cell_motion=args.cell_motion,
        timestep_fs=args.timestep_fs,
        repeats=tuple(args.repeats),
        centre=args.centre,
        cage=args.cage,
        n_members=args.n_members,
        sample_interval=args.sample_interval,
        seed=args.seed,
        folder=folder / "stages",
        progress=not args.no_progress,
    )
    result.save(folder / "scan.npz")
    figures = {"order": "plot", "lattice": "plot_lattice", "heat-capacity": "plot_heat_capacity"}
    drawn = [save_figure(result, folder / f"{name}.png", draw) for name, draw in figures.items()]
    print(result.summary())
    print("figures            " + ", ".join(map(str, drawn)))
    return 0


def _temperatures(text: str) -> list[float]:
    """Read 'first:last:step' (the last included) or a list with commas."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        first, last, step = (float(part) for part in text.split(":"))
        if step <= 0:
            raise ValueError
        return [first + k * step for k in range(int((last - first) / step + 1e-9) + 1)]
    except ValueError as error:
        raise ConfigError(
            f"--temperatures is {text!r}; give FIRST:LAST:STEP such as 300:1000:50, or a list 300,350,400"
        ) from error
