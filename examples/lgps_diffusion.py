"""Figure 4c of the paper: how fast lithium moves in Li10GeP2S12, and its activation energy.

    python examples/lgps_diffusion.py                          # 900 atoms, 5 temperatures, 100 ps each
    python examples/lgps_diffusion.py --temperatures 600 800 1000 --ps 50 --cell experiment
    python examples/lgps_diffusion.py --quick --model default --head SSE-PBE

NVT (Bussi, 2 fs) in the tetragonal cell repeated 3 x 3 x 2, made from the published structure
(paper/lgps.py), or --structure FILE. The cell is that of PBE (--cell pbe), as in the published simulations.
The first tenth is equilibration. Beside it: experiments, and values of AIMD and of Deep Potentials from
--published FILE (CSV with source, kind, temperature, coefficient in cm2/s, activation_energy in eV), of
which none ship here. Writes lgps_diffusion.json and .png, a result (.npz) for each temperature, and the
density of Li (.cube). A run that was stopped resumes with the same command; finished temperatures are not
computed again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from paper.lgps import CELLS, PUBLISHED, Published, read_published, unit_cell
from paper.record import save_record
from paper.science import (
    Verdict,
    calculator,
    give_up,
    judge,
    model_name,
    options,
    prepare,
    read_frame,
    summarise,
)

from dpa2calc.applications import Frames, arrhenius, density_map, diffusion, read_paths, run_md
from dpa2calc.applications.transport.diffusion import CM2_PER_S

FRAME_FS = 50.0


def simulate(atoms: Atoms, temperature: float, picoseconds: float, args: Any) -> Any:
    """NVT at one temperature; resumes from its restart file."""
    stem = args.output / f"{temperature:g}K"
    return run_md(
        atoms,
        steps=round(picoseconds * 1000 / args.timestep_fs),
        timestep_fs=args.timestep_fs,
        temperature=temperature,
        thermostat="bussi",  # Langevin friction would slow the ions down
        seed=args.seed,
        trajectory_interval=round(FRAME_FS / args.timestep_fs) if not args.quick else 2,
        min_distance=1.2,
        lost_distance=6.0,
        trajectory=f"{stem}.traj",
        log=f"{stem}.csv",
        restart=f"{stem}.restart.npz",
    )


def analyse(run: Any, temperature: float, skip_fs: float, args: Any) -> tuple[Any, Any]:
    """Diffusion of Li after the equilibration, and its paths."""
    interval = run.config["trajectory_interval"] * run.config["timestep_fs"]
    frames = Frames(run.trajectory, start=round(skip_fs / interval))
    paths = read_paths(frames, "Li", interval_fs=interval, progress=True)
    result = diffusion(paths, "Li", temperature=temperature, charge=1.0)
    print(result.summary(), flush=True)
    result.save(args.output / f"{temperature:g}K.npz")
    return result, paths


def row(result: Any) -> dict[str, Any]:
    """The numbers of one temperature for the record."""
    collective = None if result.collective is None else result.collective * CM2_PER_S
    return {
        "temperature_K": result.temperature,
        "D_cm2_s": result.tracer * CM2_PER_S,
        "error": result.tracer_error * CM2_PER_S,
        "collective_D_cm2_s": collective,
        "haven_ratio": result.haven_ratio,
        "conductivity_mS_cm": result.conductivity,
    }


def judge_all(results: list[Any], fit: Any, published: tuple[Published, ...]) -> list[Verdict]:
    """Every published value of the kind that can be compared."""
    verdicts = []
    for known in published:
        if known.activation_energy is not None:
            claim = f"activation energy less {known.activation_energy:g} eV ({known.source})"
            verdicts.append(judge(claim, fit.activation_energy - known.activation_energy, 0.05, "eV"))
        if known.kind == "DP" and known.coefficient and known.temperature:
            ratio = fit.at(known.temperature)[0] * CM2_PER_S / known.coefficient
            claim = f"D at {known.temperature:g} K within a factor of 2 of {known.source}"
            verdicts.append(Verdict(claim, f"ratio {ratio:.2f}", bool(0.5 <= ratio <= 2)))
    if not any(known.kind == "DP" and known.coefficient for known in published):
        verdicts.append(Verdict("D within a factor of 2 of published DP-PBE values", "none given", None))
    linear = max(abs(result.linearity - 1) for result in results)
    verdicts.append(judge("late over early slope of the displacements, less 1", linear, 0.25, "", 2))
    return verdicts


def draw(results: list[Any], fit: Any, published: tuple[Published, ...], title: str, path: Path) -> None:
    """Mean-square displacements, and the Arrhenius plot with published values."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.3), layout="constrained")
    for k, result in enumerate(results):
        left.plot(result.time, result.msd, color=f"C{k}", label=f"{result.temperature:g} K")
        low, high = result.msd - result.msd_error, result.msd + result.msd_error
        left.fill_between(result.time, low, high, color=f"C{k}", alpha=0.25, lw=0)
    left.set(xlabel="time (ps)", ylabel="mean-square displacement of Li (Å²)", title=title)
    left.set(xlim=(0, results[0].time[-1]), ylim=(0, None))
    left.legend(frameon=False)
    points: dict[str, list[tuple[float, float]]] = {}
    for known in published:
        if known.coefficient and known.temperature:
            name = f"{known.source} ({known.kind})"
            points.setdefault(name, []).append((known.temperature, known.coefficient))
    references = {name: tuple(np.array(values).T) for name, values in points.items()}
    fit.plot(right, references=references, label="this model, tracer")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run every temperature, analyse, fit, judge."""
    parser = options(__doc__, model="student-sse", output="runs/lgps_diffusion")
    parser.add_argument("--structure", type=Path, help="another start, any file that ASE reads")
    parser.add_argument("--cell", choices=tuple(CELLS), default="pbe")
    parser.add_argument("--repeat", type=int, nargs=3, default=(3, 3, 2))
    parser.add_argument("--temperatures", type=float, nargs="+", default=[500, 600, 700, 850, 1000])
    parser.add_argument("--ps", type=float, default=100.0, help="length after equilibration (default 100)")
    parser.add_argument("--timestep-fs", type=float, default=2.0)
    parser.add_argument("--published", type=Path, help="CSV of further values")
    args = parser.parse_args()
    started = prepare(args)
    published = PUBLISHED + (read_published(args.published) if args.published else ())
    start = read_frame(args.structure) if args.structure else unit_cell(args.cell)
    start = start.repeat((1, 1, 1) if args.quick else args.repeat)
    picoseconds = 0.3 if args.quick else args.ps
    temperatures = [900.0, 1400.0] if args.quick else sorted(args.temperatures)
    shared, results, rates = calculator(args), [], []
    paths: Any = None
    for temperature in temperatures:
        atoms = start.copy()
        atoms.calc = shared
        run = simulate(atoms, temperature, 1.1 * picoseconds, args)
        if run.status != "finished":
            give_up(args, "lgps_diffusion", f"{temperature:g} K: {run.reason}", started)
        result, paths = analyse(run, temperature, 100 * picoseconds, args)
        results.append(result)
        rates.append(run.ns_per_day)
    fit = arrhenius(results)
    print(fit.summary())
    fit.save(args.output / "arrhenius.npz")
    density = density_map(paths, "Li")
    density.write_cube(args.output / f"li-{temperatures[-1]:g}K.cube")
    title = f"{start.get_chemical_formula(empirical=True)}, {len(start)} atoms, {model_name(args)}"
    draw(results, fit, published, title, args.output / "lgps_diffusion.png")
    data = {
        "atoms": len(start),
        "picoseconds": picoseconds,
        "cell": str(args.structure or args.cell),
        "rows": [row(result) for result in results],
        "activation_energy_eV": [fit.activation_energy, fit.activation_energy_error],
        "D_300K_cm2_s": [value * CM2_PER_S for value in fit.at(300.0)],
        "published": [vars(known) for known in published],
        "ns_per_day": rates,
    }
    record = summarise(args, data, judge_all(results, fit, published))
    save_record(args.output / "lgps_diffusion.json", record, started)
    print(f"figure {args.output / 'lgps_diffusion.png'}")


if __name__ == "__main__":
    main()
