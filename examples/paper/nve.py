"""Is energy conserved over 20 ps? NVE runs with five heads of the shipped model (the paper's section S8).

    python examples/paper/nve.py --data data
    python examples/paper/nve.py --data data --model runs/default/best.safetensors --ps 5
    python examples/paper/nve.py --data data --quick

Each run starts from a test frame with small forces, is equilibrated with Langevin dynamics, and continues at
constant energy in float32: 0.5 fs where there is hydrogen, else 1 fs. The drift is the slope of the total
energy, with an error from block means; it should stay under 0.1 meV/atom/ps. Stop it at any time; the same
command resumes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from common import begin, load_test, parser_for, write_figure
from record import once
from report import Cell, Table, write_report

from dpa2calc import DPA2Calculator
from dpa2calc.applications import run_md
from dpa2calc.applications.md.conservation_result import energy_drift
from dpa2calc.training import Dataset

LIMIT = 0.1  # meV/atom/ps
LOG_FS = 10.0  # between two logged energies; the same for every --ps, so that a longer run can resume


@dataclass(frozen=True)
class Run:
    """A head, where its structure comes from, and the dynamics (fs, K)."""

    head: str
    folder: str
    timestep: float
    temperature: float
    atoms: tuple[int, int] = (20, 200)


RUNS = (
    Run("H2O-PBE0TS", "H2O-PBE0TS", 0.5, 330.0),
    Run("mlearn-PBE", "Cu-mlearn", 1.0, 300.0, (32, 108)),
    Run("SSE-PBE", "SSE-PBE", 1.0, 500.0, (40, 120)),
    Run("FerroEle", "FerroEle", 1.0, 300.0, (40, 60)),
    Run("Mol-3BPA", "Mol-3BPA", 0.5, 300.0),
)


def main() -> None:
    """Run what is missing, print the table."""
    args = options()
    begin(args)
    chosen = [run for run in RUNS if run.head in args.heads]
    results = {
        run.head: once(args.output / f"{run.head}.json", partial(simulate, run, args)) for run in chosen
    }
    print(
        write_report(
            args.output,
            "nve",
            title="Energy conservation of five heads (section S8)",
            tables=[table(results)],
            figures=[figure(results, args)],
            notes=[
                f"{args.model}, float32; {args.ps:g} ps after {args.equilibration_ps:g} ps of Langevin",
                "The paper (Figure S3) shows DPA-2 without drift on three OC2M structures, without numbers.",
            ],
            numbers={
                head: {k: v for k, v in r.items() if k not in ("time_ps", "energy")}
                for head, r in results.items()
            },
            quick=args.quick,
        )
    )


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = parser_for(__doc__, "nve")
    parser.add_argument("--model", default="default", help="a name or a file")
    parser.add_argument("--heads", nargs="+", choices=[r.head for r in RUNS], default=[r.head for r in RUNS])
    parser.add_argument("--ps", type=float, default=20.0, help="length of the runs at constant energy")
    parser.add_argument("--equilibration-ps", type=float, default=1.0)
    args = parser.parse_args()
    if args.quick:
        args.ps, args.equilibration_ps, args.heads = 0.03, 0.01, ["Mol-3BPA"]
    return args


def calmest(data: Dataset, smallest: int, largest: int) -> Atoms:
    """The frame with the least forces among those of a suitable number of atoms."""
    fit = [f for f in data if smallest <= f.n_atoms <= largest and f.forces is not None]
    if not fit:
        raise SystemExit(f"{data.name}: no test frame of {smallest} to {largest} atoms")
    return min(fit, key=lambda f: float(np.mean(np.square(f.forces)))).atoms()


def simulate(run: Run, args: argparse.Namespace) -> dict[str, Any]:
    """Equilibrate, run at constant energy, measure the drift."""
    folder = args.output / run.head
    folder.mkdir(exist_ok=True)
    atoms = calmest(load_test(run.folder, args.data), *run.atoms)
    atoms.calc = DPA2Calculator(args.model, run.head, device=args.device, dtype="float32")
    start = run_md(
        atoms,
        steps=round(1000 * args.equilibration_ps / run.timestep),
        timestep_fs=run.timestep,
        temperature=run.temperature,
        seed=args.seed,
        restart=folder / "equilibration.npz",
    )
    atoms.set_positions(start.positions)
    atoms.set_momenta(start.momenta)
    steps = round(1000 * args.ps / run.timestep)
    result = run_md(
        atoms,
        steps=steps,
        ensemble="nve",
        timestep_fs=run.timestep,
        temperature=run.temperature,
        velocities="keep",
        log_interval=1 if args.quick else round(LOG_FS / run.timestep),
        log=folder / "nve.csv",
        restart=folder / "nve.npz",
    )
    drift, error, rms = energy_drift(result.time_fs, result.total_energy, len(atoms))
    change = 1000 * (result.total_energy - result.total_energy[0]) / len(atoms)
    return {
        "formula": atoms.get_chemical_formula(),
        "atoms": len(atoms),
        "timestep_fs": run.timestep,
        "ps": float(result.time_fs[-1]) / 1000,
        "temperature": float(np.mean(result.temperature[len(result.temperature) // 2 :])),
        "drift": drift,
        "drift_error": error,
        "rms": rms,
        "status": result.status if result.status == "finished" else result.reason,
        "time_ps": np.round(result.time_fs / 1000, 4).tolist(),
        "energy": np.round(change, 5).tolist(),
    }


def table(results: dict[str, dict[str, Any]]) -> Table:
    """Drift and fluctuation of each head."""
    rows: list[tuple[Cell, ...]] = []
    for head, r in results.items():
        verdict = "yes" if r["status"] == "finished" and abs(r["drift"]) < LIMIT else "no"
        numbers = (r["timestep_fs"], r["ps"], r["temperature"], r["drift"], r["drift_error"], r["rms"])
        rows.append((head, r["formula"], *numbers, verdict, r["status"]))
    columns = ("head", "structure", "dt (fs)", "ps", "K", "drift", "+-", "rms", f"< {LIMIT}", "status")
    return Table("Drift (meV/atom/ps) and rms about it (meV/atom) of the total energy", columns, tuple(rows))


def figure(results: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    """Total energy against time."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 3.5))
    for head, r in results.items():
        ax.plot(r["time_ps"], r["energy"], lw=0.8, label=f"{head}: {r['drift']:+.3f} meV/atom/ps")
    ax.set(xlabel="time (ps)", ylabel="change of total energy (meV/atom)")
    ax.legend(fontsize="small")
    return write_figure(fig, args.output / "nve.png")


if __name__ == "__main__":
    main()
