"""`dpa2calc diffusion`: diffusion coefficients, conductivity and activation energy from trajectories."""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpa2calc.cli.arguments.application import refuse_idle
from dpa2calc.cli.arguments.frames import add_selection_arguments, selected_frames
from dpa2calc.cli.arguments.output import check_files, stem
from dpa2calc.cli.arguments.written import values_of, write_values
from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import check_figure, save_figure

if TYPE_CHECKING:
    from dpa2calc.applications import Arrhenius, Diffusion, VanHove
    from dpa2calc.files.results import Result

EXAMPLE = """examples:
  dpa2calc diffusion 600K.traj --species Li --temperature 600 --charge 1 --map li.cube --van-hove 1 10
  dpa2calc diffusion 500K.traj 600K.traj 700K.traj 900K.traj --temperature 500 600 700 900 --fit 1 5
"""
DESCRIPTION = "Tracer and collective diffusion with error bars; Arrhenius fit of several runs."
TABLE = "a row a lag of a trajectory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("trajectories", nargs="+", help="one file for each temperature")
    add("--species", default="Li", help="element that diffuses")
    add("--temperature", type=float, nargs="+", help="in K, one for each trajectory")
    add("--charge", type=float, help="of the species in e, for the conductivity")
    add("--interval-fs", type=float, help="time between stored frames (default: as written by `dpa2calc md`)")
    text = "window of lags in ps (default: 2 to 10 %% of the run)"
    add("--fit", type=float, nargs=2, metavar=("T1", "T2"), help=text)
    text = "taken off: motion of the other elements (solids), of all atoms (liquids), or nothing"
    add("--drift", choices=("auto", "framework", "all", "none"), default="auto", help=text)
    add("--unwrapped", dest="wrapped", action="store_false", help="coordinates never jump at a boundary")
    add("--figure", metavar="FILE", help="picture (default: NAME-diffusion.png, NAME from the first input's)")
    add("--save", metavar="FILE", help="store the result (.npz); with several, the Arrhenius fit")
    add("--map", metavar="FILE", help="also write a density map (.cube) of the last trajectory")
    text = "also draw van Hove functions of the last trajectory at these lags"
    add("--van-hove", dest="lags_ps", type=float, nargs="+", metavar="PS", help=text)
    add_selection_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print summaries, draw the figure, write map and result."""
    from dpa2calc.applications import arrhenius, density_map, diffusion, read_paths, van_hove

    files, temperatures = args.trajectories, args.temperature or [None] * len(args.trajectories)
    if len(temperatures) != len(files):
        raise ConfigError(
            f"{len(files)} trajectories but {len(temperatures)} temperatures; give one for each"
        )
    if args.temperature is None:
        refuse_idle(args, "without --temperature, which conductivities need too", "charge")
    fits = len(set(temperatures)) > 1
    if args.save and len(files) > 1 and not fits:
        raise ConfigError(
            "--save keeps one result, of several trajectories the Arrhenius fit; give different --temperature"
            " values, or one trajectory"
        )
    if args.lags_ps and not all(0.0 < lag < math.inf for lag in args.lags_ps):
        raise ConfigError(f"--van-hove is {args.lags_ps}; give times above 0 ps")
    picture = args.figure or f"{stem(files[0])}-diffusion.png"
    check_figure(picture)
    check_files(args.save, args.map)
    results = []
    for file, temperature in zip(files, temperatures):
        paths = read_paths(
            selected_frames(args, file),
            args.species,
            interval_fs=None if args.interval_fs is None else args.interval_fs * args.step,
            drift=args.drift,
            wrapped=args.wrapped,
            progress=not args.quiet,
        )
        fit = tuple(args.fit) if args.fit else None
        result = diffusion(paths, args.species, temperature=temperature, charge=args.charge, fit=fit)
        print(result.summary())
        results.append(result)
    # what may still be refused comes before anything is written
    functions = van_hove(paths, args.species, lags_ps=args.lags_ps) if args.lags_ps else None
    density = density_map(paths, args.species) if args.map else None
    plots: list[Callable[..., object]] = [result.plot for result in results]
    final: Result = results[0]
    fitted: Arrhenius | None = None
    if fits:
        final = fitted = arrhenius(results)
        print(fitted.summary())
        plots.append(fitted.plot)
    _write(args, results, fitted, functions)
    print(f"figure: {save_figure(picture, *plots)}")
    if args.save:
        print(f"result: {final.save(args.save)}")
    if functions is not None:
        print(functions.summary())
        figure = Path(picture).with_name(f"{Path(picture).stem}-van-hove{Path(picture).suffix}")
        print(f"figure: {save_figure(figure, functions.plot)}")
    if density is not None:
        print(density.summary())
        print(f"map: {density.write_cube(args.map)}")
    return 0


def _write(
    args: argparse.Namespace, results: Sequence[Diffusion], fitted: Arrhenius | None,
    functions: VanHove | None,
) -> None:  # fmt: skip
    """The values of each trajectory, of the fit through all of them and of the last one, for scripts."""
    from dpa2calc.applications import Arrhenius, VanHove

    values: dict[str, object] = {"trajectories": [values_of(result) for result in results]}
    values |= {"files": args.trajectories, "arrhenius": values_of(fitted) if fitted else None}
    values["van_hove"] = values_of(functions) if functions else None
    table: dict[str, list[object]] = {}
    for file, result in zip(args.trajectories, results):
        x, y, z = result.msd_xyz.T
        columns: dict[str, Iterable[object]] = {
            "trajectory": [file] * len(x),
            "lag_ps": result.time,
            "msd_A2": result.msd,
        }
        columns |= {"msd_error_A2": result.msd_error, "msd_x_A2": x, "msd_y_A2": y, "msd_z_A2": z}
        for name, column in columns.items():
            table.setdefault(name, []).extend(column)
    kinds = {"trajectories": type(results[0]), "arrhenius": Arrhenius, "van_hove": VanHove}
    told = "\n\n".join(f"{name}: {inspect.getdoc(kind)}" for name, kind in kinds.items())
    write_values(args, (type(results[0]).__name__, told), values, table, made_by=results[0].provenance)
