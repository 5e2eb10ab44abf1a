"""Section S8 of the paper: the total energy of NVE runs does not drift, and its error falls as dt².

    python examples/energy_conservation.py                        # water, LGPS, PbTiO3 with their students
    python examples/energy_conservation.py --systems water --model default
    python examples/energy_conservation.py --quick --systems water --model default

From one equilibrated state of each system, runs with several time steps; beside them the same model with its
forces turned by 3 degrees, which stands for models whose forces are no gradient of an energy: these drift.
Writes energy_conservation.json and .png. A run that was stopped resumes with the same command.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from paper.lgps import unit_cell
from paper.record import save_record
from paper.science import Verdict, calculator, options, prepare, read_frame, summarise

from dpa2calc.applications import EnergyConservation, TurnedForces, energy_conservation, perovskite

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class System:
    """A start, the model that knows it, temperature (K) and time steps (fs)."""

    model: str
    start: Callable[[], Atoms]
    temperature: float
    timesteps: tuple[float, ...]


def water() -> Atoms:
    """64 molecules."""
    return read_frame(DATA / "water64.extxyz")


def lead_titanate() -> Atoms:
    """PbTiO3, 2 x 2 x 2 cells in one domain."""
    return perovskite("Pb", "Ti", repeats=(2, 2, 2), lattice_constant=3.93, polar_shift=0.15)


SYSTEMS = {
    "water": System("student-water", water, 330.0, (0.125, 0.25, 0.5, 1.0)),
    "lgps": System("student-sse", lambda: unit_cell().repeat((2, 2, 1)), 600.0, (0.5, 1.0, 2.0, 4.0)),
    "PbTiO3": System("student-ferroelectric", lead_titanate, 300.0, (0.5, 1.0, 2.0, 4.0)),
}


def run(name: str, args: argparse.Namespace) -> EnergyConservation:
    """All time steps of one system."""
    system = SYSTEMS[name]
    mine = copy.copy(args)
    mine.model = args.model or system.model
    atoms = system.start()
    atoms.calc = calculator(mine)
    steps = system.timesteps[-2:] if args.quick else system.timesteps
    result = energy_conservation(
        atoms,
        steps,
        duration_fs=120 * steps[-1] if args.quick else args.ps * 1000,
        equilibration_fs=20 * steps[0] if args.quick else 1000.0,
        temperature=system.temperature,
        compare={"forces turned by 3°": TurnedForces(calculator(mine), 3.0)},
        label="conservative",
        seed=args.seed,
        folder=args.output / name,
    )
    print(name, result.summary(), sep="\n", flush=True)
    return result


def verdicts(results: dict[str, EnergyConservation]) -> list[Verdict]:
    """No drift at the smallest step, error as dt², and a drift where forces are no gradient."""
    found = []
    for name, result in results.items():
        drift, error = result.drift[0, 0], result.drift_error[0, 0]
        none = bool(abs(drift) < max(3 * error, 0.05))
        claim = f"{name}: no drift (3 errors, or 0.05 meV/atom/ps) at {result.timesteps_fs[0]:g} fs"
        found.append(Verdict(claim, f"{drift:+.4f} ± {error:.4f} meV/atom/ps", none))
        order = result.order[0]
        claim = f"{name}: fluctuation falls as dt^p, p from 1.7 to 2.3"
        found.append(Verdict(claim, f"p = {order:.2f}", bool(1.7 <= order <= 2.3)))
        other = abs(result.drift[1, 0])
        claim = f"{name}: turned forces drift 10 times more"
        found.append(Verdict(claim, f"{other:.3f} meV/atom/ps", bool(other > 10 * max(abs(drift), error))))
    return found


def draw(results: dict[str, EnergyConservation], path: Path) -> None:
    """A row for each system: energy against time, and fluctuation against the time step."""
    import matplotlib.pyplot as plt

    rows = len(results)
    figure, axes = plt.subplots(rows, 2, figsize=(10, 3.4 * rows), layout="constrained", squeeze=False)
    for (name, result), (left, right) in zip(results.items(), axes):
        result.plot_energy(ax=left)
        left.set_title(f"{name}, {result.n_atoms} atoms, {result.timesteps_fs[0]:g} fs", fontsize="medium")
        result.plot(right)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run every system, draw, judge."""
    parser = options(__doc__, model="", output="runs/energy_conservation")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=tuple(SYSTEMS))
    parser.add_argument("--ps", type=float, default=3.0, help="length of each run (default 3)")
    args = parser.parse_args()
    started = prepare(args)
    results: dict[str, EnergyConservation] = {}
    for name in args.systems:
        results[name] = run(name, args)
        results[name].save(args.output / f"{name}.npz")
        draw(results, args.output / "energy_conservation.png")
    rows: dict[str, Any] = {
        name: {
            "model": args.model or SYSTEMS[name].model,
            "atoms": result.n_atoms,
            "timesteps_fs": result.timesteps_fs.tolist(),
            "labels": list(result.labels),
            "drift_meV_atom_ps": result.drift.tolist(),
            "drift_error": result.drift_error.tolist(),
            "fluctuation_meV_atom": result.fluctuation.tolist(),
            "order": result.order.tolist(),
        }
        for name, result in results.items()
    }
    record = summarise(args, {"picoseconds": args.ps, "systems": rows}, verdicts(results))
    save_record(args.output / "energy_conservation.json", record, started)
    print(f"figure {args.output / 'energy_conservation.png'}")


if __name__ == "__main__":
    main()
