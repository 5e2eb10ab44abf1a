"""Figure 4a-b of the paper: liquid water at 330 K, g(r) and the O-O-O angle beside the DFT frames.

    python examples/water_rdf.py                       # 192 atoms, 50 ps, the student in the package
    python examples/water_rdf.py --repeat 2 2 2 --picoseconds 20
    python examples/water_rdf.py --quick --model default

NVT (Langevin, 330 K, 0.5 fs) from examples/data/water64.extxyz. The reference, 400 frames of H2O-PBE0TS
(PBE0+TS), is in examples/data/water_pbe0ts_rdf.json; with --data FOLDER it is computed afresh from the
frames. Writes water_rdf.json and water_rdf.png into --output. A run that was stopped goes on with the same
command.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
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
    read_set,
    summarise,
)

from dpa2calc.applications import Frames, angular_distribution, radial_distributions, run_md

DATA = Path(__file__).parent / "data"
PAIRS = ("O-O", "O-H", "H-H")


def reference(folder: Path | None) -> dict[str, Any]:
    """Curves of the DFT frames: {pair: (r, g)}, and of the angle: cutoff, degrees, density."""
    if folder is None:
        stored = json.loads((DATA / "water_pbe0ts_rdf.json").read_text())
        r = np.array(stored["r"])
        curves = {pair: (r, np.array(stored["pairs"][pair]["g"])) for pair in PAIRS}
        angle = stored["angle"]
        return {"pairs": curves, "cutoff": angle["cutoff"], "angle": (angle["degrees"], angle["density"])}
    frames = read_set(folder)
    found = radial_distributions(frames, PAIRS, r_max=6.0, bin_width=0.05)
    cutoff = found["O-O"].first_minimum()
    angles = angular_distribution(frames, "O-O-O", cutoff=cutoff, bin_width=2.0)
    curves = {pair: (curve.r, curve.g) for pair, curve in found.items()}
    return {"pairs": curves, "cutoff": cutoff, "angle": (angles.angle, angles.density)}


def simulate(args: Any, steps: int) -> Any:
    """The dynamics; goes on from its restart file."""
    atoms = read_frame(DATA / "water64.extxyz").repeat(args.repeat)
    atoms.calc = calculator(args)
    return run_md(
        atoms,
        steps=steps,
        timestep_fs=0.5,
        temperature=args.temperature,
        thermostat="langevin",
        seed=args.seed,
        trajectory_interval=10 if args.quick else 40,
        min_distance=0.65,  # closer than any bond of water: the model has left what it knows
        temperature_limit=2 * args.temperature,
        trajectory=args.output / "water.traj",
        log=args.output / "water.csv",
        restart=args.output / "restart.npz",
    )


def compare(curves: dict[str, Any], angles: Any, dft: dict[str, Any]) -> tuple[dict[str, Any], list[Verdict]]:
    """Numbers of every curve beside the reference, and verdicts on the limits."""
    rows: dict[str, Any] = {}
    for pair, curve in curves.items():
        difference = curve.compare(dft["pairs"][pair])
        position, height = curve.first_peak()
        rows[pair] = {
            "peak_A": position,
            "peak_height": height,
            "dft_peak_A": position - difference.peak_shift,
            "dft_peak_height": height / difference.peak_height_ratio,
            "mean_absolute_deviation": difference.mean_absolute_deviation,
        }
        print(f"g_{pair}: {difference.summary()}")
    oo = rows["O-O"]
    distance = 0.5 * float(np.sum(np.abs(angles.density - np.array(dft["angle"][1])) * angles.widths))
    rows["O-O-O"] = {"cutoff_A": dft["cutoff"], "half_integral_of_difference": distance}
    verdicts = [
        judge("first O-O peak, shift", oo["peak_A"] - oo["dft_peak_A"], 0.03, "Å"),
        judge("first O-O peak, height", 100 * (oo["peak_height"] / oo["dft_peak_height"] - 1), 5.0, "%", 1),
        judge("mean |difference| of g_OO", oo["mean_absolute_deviation"], 0.05),
        judge("O-O-O angle, half the integral of |difference|", distance, 0.05),
    ]
    return rows, verdicts


def draw(curves: dict[str, Any], angles: Any, dft: dict[str, Any], title: str, path: Path) -> None:
    """Three g(r) in one panel, the angle in the other, as in the paper."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for k, (pair, curve) in enumerate(curves.items()):
        name = "DFT frames, PBE0+TS" if k == 0 else None
        left.plot(*dft["pairs"][pair], "k--", lw=1.2, zorder=3, label=name)
        left.plot(curve.r, curve.g, color=f"C{k}", lw=1.8, label=f"$g_\\mathrm{{{pair.replace('-', '')}}}$")
    left.set(xlabel="r (Å)", ylabel="g(r)", xlim=(0.5, 6.0), ylim=(0, 4), title=title)
    left.legend(frameon=False)
    right.plot(*dft["angle"], "k--", lw=1.2, zorder=3, label="DFT frames, PBE0+TS")
    right.plot(angles.angle, angles.density, lw=1.8, label=f"O-O-O within {dft['cutoff']:.2f} Å")
    right.set(xlabel="angle (°)", ylabel="probability density (1/°)", xlim=(20, 180))
    right.set_ylim(bottom=0)
    right.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Run, analyse, draw, judge."""
    parser = options(__doc__, model="student-water", output="runs/water_rdf")
    parser.add_argument("--data", type=Path, help="folder of H2O-PBE0TS, to compute the reference afresh")
    parser.add_argument("--picoseconds", type=float, default=50.0, help="length of the run (default 50)")
    parser.add_argument("--equilibration", type=float, default=5.0, help="ps left out (default 5)")
    parser.add_argument("--temperature", type=float, default=330.0, help="K (default 330)")
    parser.add_argument("--repeat", type=int, nargs=3, default=(1, 1, 1), help="of the cell of 64 molecules")
    args = parser.parse_args()
    started = prepare(args)
    picoseconds, skip = (0.2, 0.05) if args.quick else (args.picoseconds, args.equilibration)
    result = simulate(args, round(picoseconds * 2000))
    print(result.summary())
    if result.status != "finished":
        give_up(args, "water_rdf", result.reason, started)
    frames = Frames(args.output / "water.traj", start=round(skip / picoseconds * _count(result)))
    dft = reference(args.data)
    curves = radial_distributions(frames, PAIRS, r_max=6.0, bin_width=0.05, progress=True)
    angles = angular_distribution(frames, "O-O-O", cutoff=dft["cutoff"], bin_width=2.0, progress=True)
    rows, verdicts = compare(curves, angles, dft)
    mean, error = result.average("temperature", skip * 1000)
    draw(curves, angles, dft, f"{result.n_atoms} atoms, {args.temperature:g} K, {model_name(args)}",
         args.output / "water_rdf.png")  # fmt: skip
    data = {
        "atoms": result.n_atoms,
        "picoseconds": picoseconds,
        "status": result.status,
        "temperature_K": [mean, error],
        "ns_per_day": result.ns_per_day,
        "curves": rows,
    }
    save_record(args.output / "water_rdf.json", summarise(args, data, verdicts), started)
    print(f"figure {args.output / 'water_rdf.png'}")


def _count(result: Any) -> int:
    """Frames in the trajectory of the whole run."""
    return int(result.n_steps // result.config["trajectory_interval"]) + 1


if __name__ == "__main__":
    main()
