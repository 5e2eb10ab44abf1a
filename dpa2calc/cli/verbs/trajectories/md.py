"""`dpa2calc md`: molecular dynamics from a structure file to a trajectory, a log and a figure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dpa2calc.cli.arguments.application import add_application_arguments, prepared_atoms, refuse_idle
from dpa2calc.cli.arguments.freedom import add_words
from dpa2calc.cli.arguments.written import Table, write_result
from dpa2calc.files.figures import save_figure

if TYPE_CHECKING:
    from dpa2calc.applications import MDResult

EXAMPLE = """\
example: 10 ps of liquid water at 330 K, then 10 ps more
  dpa2calc md water.extxyz --temperature 330 --steps 20000 --head H2O-PBE0TS --out water
  dpa2calc md water.extxyz --temperature 330 --steps 40000 --head H2O-PBE0TS --out water

The folder given by --out holds trajectory.traj, log.csv, restart.npz, result.npz and md.png.
Running again with the same folder resumes from restart.npz to the total number of --steps and
gives the numbers of an uninterrupted run. A ramp is START:END, for example --temperature 300:900.
"""
TABLE = "a row a logged step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, output = add_application_arguments(parser, "run", "md/NAME, NAME from the input's")
    add = group.add_argument
    add("--steps", type=int, required=True, help="total number of steps, earlier runs included")
    add("--ensemble", choices=("nve", "nvt", "npt"), help="what is held (default: nvt)")
    add("--timestep-fs", "--timestep", type=float, metavar="FS", help="time step (default: 0.5)")
    add("--temperature", type=_number_or_ramp, metavar="K", help="K, or START:END (default: 300)")
    add("--pressure-gpa", "--pressure", type=_number_or_ramp, metavar="GPA", help="NPT, GPa (default: 0)")
    add("--ramp-steps", type=int, metavar="STEPS", help="length of ramps (default: --steps)")
    add("--thermostat", choices=("langevin", "bussi", "nose-hoover"), help="NVT (default: langevin)")
    add("--thermostat-time-fs", type=float, metavar="FS", help="relaxation time (default: 100)")
    add("--barostat-time-fs", type=float, metavar="FS", help="relaxation time (default: 1000)")
    add_words(group, "--cell-motion", allowed=("volume", "axes", "cell"), help="NPT (default: volume)")
    text = "of the structure file, or drawn (default: auto)"
    add("--velocities", choices=("auto", "keep", "new"), help=text)
    add("--seed", type=int, help="of velocities and thermostat (default: 0)")
    add = parser.add_argument_group("limits that stop the run").add_argument
    add("--temperature-limit", type=float, metavar="K", help="default: ten times the target")
    add("--force-limit", type=float, metavar="EV_PER_A", help="on one atom (default: 100)")
    add("--step-limit", type=float, metavar="A", help="displacement in one step (default: 1)")
    add("--min-distance", type=float, metavar="A", help="of any two atoms")
    add("--lost-distance", type=float, metavar="A", help="to the nearest neighbour (default: 10)")
    add("--committee-limit", type=float, metavar="EV_PER_A", help="spread of --committee")
    text = "deviation of an atom's energy, of one model"
    add("--uncertainty-limit", type=float, metavar="EV", help=text)
    add = output.add_argument
    add("--format", choices=("traj", "extxyz"), default="traj", help="of the trajectory")
    add("--trajectory-interval", type=int, metavar="STEPS", help="steps between frames (default: 100)")
    add("--log-interval", type=int, metavar="STEPS", help="steps between rows of the log (default: 10)")
    add("--overwrite", action="store_true", help="start afresh, replacing files in --out")


def _number_or_ramp(text: str) -> float | tuple[float, float]:
    """Read '300' as 300.0 and '300:600' as (300.0, 600.0), for argparse."""
    try:
        first, *rest = (float(part) for part in text.split(":"))
        (last,) = rest or (first,)
    except ValueError:
        message = f"{text!r}: give one number, or START:END for a ramp"
        raise argparse.ArgumentTypeError(message) from None
    return (first, last) if rest else first


def run(args: argparse.Namespace) -> int:
    """Run the verb; 0 when the run reached its steps, 1 when a limit stopped it."""
    from dpa2calc.applications import MDConfig, run_md

    ensemble = args.ensemble or MDConfig.ensemble
    if ensemble != "npt":
        refuse_idle(args, "without --ensemble npt", "barostat_time_fs", "cell_motion")
    if ensemble == "npt":
        refuse_idle(args, "with --ensemble npt, whose thermostat is nose-hoover", "thermostat")
    if ensemble == "nve":
        refuse_idle(args, "with --ensemble nve", "thermostat", "thermostat_time_fs")
    if not any(isinstance(ramp, tuple) for ramp in (args.temperature, args.pressure_gpa)):
        refuse_idle(args, "without a ramp (--temperature START:END)", "ramp_steps")
    if args.committee is None:
        refuse_idle(args, "without --committee", "committee_limit")
    given = {name: getattr(args, name, None) for name in MDConfig.__dataclass_fields__}
    config = MDConfig(**{name: value for name, value in given.items() if value is not None})
    atoms = prepared_atoms(args, "md")
    folder = Path(args.out)
    result = run_md(
        atoms,
        config,
        trajectory=folder / f"trajectory.{args.format}",
        log=folder / "log.csv",
        restart=folder / "restart.npz",
        overwrite=args.overwrite,
        progress=not args.no_progress,
    )
    print(result.summary())  # first: it is there if the disk is full
    result.save(folder / "result.npz")
    write_result(args, result, _table(result))
    figure = save_figure(folder / "md.png", result.plot)
    print(f"{'figure':18s} {figure}")
    if result.status != "finished":
        print(args.say(result.reason), file=sys.stderr)
        return 1
    return 0


def _table(result: MDResult) -> Table:
    from ase.units import GPa

    energies = ("potential", "kinetic", "total", "conserved")
    return {
        "step": result.step,
        "time_fs": result.time_fs,
        **{f"{name}_energy_eV": getattr(result, f"{name}_energy") for name in energies},
        "temperature_K": result.temperature,
        "target_temperature_K": result.target_temperature,
        "pressure_GPa": result.pressure / GPa,
        "volume_A3": result.volume,
        "max_force_eV_per_A": result.max_force,
        "max_force_std_eV_per_A": result.max_force_std,
    }
