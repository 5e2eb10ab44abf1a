"""`dpa2calc phase-transition`: heat and cool a crystal and find where it transforms."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpa2calc.cli.arguments.application import add_application_arguments, chosen, prepared_atoms, refuse_idle
from dpa2calc.cli.arguments.freedom import add_words
from dpa2calc.cli.arguments.written import Table, write_result
from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import save_figure

if TYPE_CHECKING:
    from dpa2calc.applications import PhaseTransition

EXAMPLE = """\
example: PbTiO3 from 300 to 1000 K in steps of 50 K and back, 20 ps each
  dpa2calc phase-transition PbTiO3.cif --head FerroEle --repeat 4 4 4 --per-cell 4 4 4 \\
      --temperatures 300:1000:50 --picoseconds 20 --centre Ti --out pto

The folder given by --out holds scan.npz, the figures order.png, lattice.png and heat-capacity.png, and
the trajectories, logs and restart files of all stages; a scan that was stopped resumes.
"""
TABLE = "a row a stage"
_MOST_STAGES = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, _ = add_application_arguments(parser, "scan", "phase-transition/NAME, NAME from the input's")
    add = group.add_argument
    add("--temperatures", required=True, metavar="FIRST:LAST:STEP", help="K, or a list 300,350,...")
    add("--picoseconds", type=float, default=10.0, metavar="PS", help="length of a stage")
    add("--equilibration", type=float, default=0.4, help="fraction left out")
    add("--heating-only", dest="cooling", action="store_false", help="do not go back down")
    add("--pressure-gpa", "--pressure", type=float, default=0.0, metavar="GPA", help="of the cell")
    text = "how the cell may change"
    add_words(group, "--cell-motion", allowed=("volume", "axes", "cell"), default="cell", help=text)
    add("--timestep-fs", "--timestep", type=float, default=1.0, metavar="FS", help="time step")
    add(
        "--per-cell",
        dest="repeats",
        type=int,
        nargs=3,
        default=(1, 1, 1),
        metavar=("A", "B", "C"),
        help="unit cells along the cell vectors of the supercell",
    )
    add("--centre", metavar="ELEMENTS", help="follow these off their cage: Ti, or Ti+Nb+Mg")
    add("--cage", default="O", metavar="ELEMENT", help="atoms of the cage")
    add("--members", dest="n_members", type=int, default=6, help="atoms in a cage")
    add("--sample-interval", type=int, default=20, metavar="STEPS", help="between frames")
    add("--seed", type=int, default=0, help="of velocities and thermostat")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    from dpa2calc.applications import phase_transition

    if args.centre is None:
        refuse_idle(args, "without --centre", "cage", "n_members")
    temperatures = _temperatures(args.temperatures)
    atoms = prepared_atoms(args, "phase-transition")
    folder = Path(args.out)
    names = ["picoseconds", "equilibration", "cooling", "pressure_gpa", "cell_motion", "timestep_fs"]
    names += ["repeats", "centre", "cage", "n_members", "sample_interval", "seed"]
    options = {**chosen(args, *names), "folder": folder / "stages"}
    result = phase_transition(atoms, temperatures, **options)
    print(result.summary())  # first: it is there if the disk is full
    result.save(folder / "scan.npz")
    write_result(args, result, _table(result))
    figures = {
        "order": result.plot,
        "lattice": result.plot_lattice,
        "heat-capacity": result.plot_heat_capacity,
    }
    drawn = [save_figure(folder / f"{name}.png", draw) for name, draw in figures.items()]
    print("figures            " + ", ".join(map(str, drawn)))
    return 0


def _temperatures(text: str) -> list[float]:
    """Read 'first:last:step' (the last included) or a list with commas."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        first, last, step = (float(part) for part in text.split(":"))
        number = (last - first) / step if step > 0 else math.nan
        if not number < _MOST_STAGES:
            raise ValueError
        return [first + k * step for k in range(int(number + 1e-9) + 1)]
    except ValueError as error:
        raise ConfigError(
            f"--temperatures is {text!r}; give FIRST:LAST:STEP such as 300:1000:50, or a list 300,350,400"
        ) from error


def _table(result: PhaseTransition) -> Table:
    means = {
        "temperature_K": result.temperature,
        "enthalpy_eV_per_atom": result.enthalpy,
        "volume_A3_per_atom": result.volume,
        **{f"{axis}_A": result.lengths[:, k] for k, axis in enumerate("abc")},
        **{f"{axis}_deg": result.angles[:, k] for k, axis in enumerate(("alpha", "beta", "gamma"))},
        "tetragonality": result.tetragonality,
        **{f"displacement_{axis}_A": result.displacement[:, k] for k, axis in enumerate("xyz")},
        "polar_A": result.polar,
        "local_A": result.local,
        "order": result.order,
        "heat_capacity_kB_per_atom": result.heat_capacity,
    }
    table: dict[str, Any] = {"branch": result.branch, "target_K": result.target}
    for name, values in means.items():
        table |= {name: values[:, 0], f"{name}_error": values[:, 1]}
    return {**table, "direction": result.direction}
