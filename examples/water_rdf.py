"""Figure 4a-b of the paper: liquid water at 330 K, g(r) and the O-O-O angle beside the DFT frames.

    python examples/water_rdf.py --seeds 1 2 3         # 192 atoms, three runs of 50 ps
    python examples/water_rdf.py --repeat 2 2 2 --picoseconds 20
    python examples/water_rdf.py --quick --model default

NVT (Langevin, 330 K, 0.5 fs) from examples/data/water64.extxyz, one run a seed. Errors are jackknife errors
over blocks of 5 ps of all runs: 64 molecules fluctuate slowly, and a single run of 12 ps can be off by 10 %
in the height of the first peak. The reference, 400 frames of H2O-PBE0TS (PBE0+TS), is in
examples/data/water_pbe0ts_rdf.json; with --data FOLDER it is computed afresh from the frames. Writes
water_rdf.json and water_rdf.png into --output. A run that was stopped resumes with the same command.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paper.record import save_record
from paper.science import (
    Verdict,
    calculator,
    give_up,
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


def simulate(args: argparse.Namespace, seed: int, steps: int) -> Any:
    """The dynamics of one seed; resumes from its restart file."""
    folder = args.output / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    atoms = read_frame(DATA / "water64.extxyz").repeat(args.repeat)
    atoms.calc = calculator(args)
    return run_md(
        atoms,
        steps=steps,
        timestep_fs=0.5,
        temperature=args.temperature,
        thermostat="langevin",
        seed=seed,
        trajectory_interval=10 if args.quick else 40,
        min_distance=0.65,  # closer than any bond of water: the model has left what it knows
        temperature_limit=2 * args.temperature,
        trajectory=folder / "water.traj",
        log=folder / "water.csv",
        restart=folder / "restart.npz",
    )


def analyse(
    path: Path, dft: dict[str, Any], *, length: float, skip: float, block: float, interval: float
) -> list[Any]:
    """(curves, angles) of each block of a trajectory.

    Args:
        length: ps of the trajectory.
        skip, block: ps left out at the start, and of each block.
        interval: ps between frames.
    """
    first, n = round(skip / interval), max(1, round(block / interval))
    found = []
    last = round(length / interval)
    for start in range(first + 1, last - n + 2, n):  # a block ends with the frame of its last step
        frames = Frames(path, start=start, stop=start + n)
        curves = radial_distributions(frames, PAIRS, r_max=6.0, bin_width=0.05)
        angles = angular_distribution(frames, "O-O-O", cutoff=dft["cutoff"], bin_width=2.0)
        found.append((curves, angles))
    return found


def mean_of(blocks: Sequence[Any]) -> tuple[dict[str, Any], Any]:
    """Curves and angles averaged over blocks of equal length."""
    curves = {
        pair: dataclasses.replace(blocks[0][0][pair], g=np.mean([b[0][pair].g for b in blocks], axis=0))
        for pair in PAIRS
    }
    density = np.mean([b[1].density for b in blocks], axis=0)
    return curves, dataclasses.replace(blocks[0][1], density=density)


def numbers(blocks: Sequence[Any], dft: dict[str, Any]) -> dict[str, float]:
    """Deviations of the mean curves from the reference."""
    curves, angles = mean_of(blocks)
    found: dict[str, float] = {}
    for pair, curve in curves.items():
        difference = curve.compare(dft["pairs"][pair])
        found[f"{pair} peak shift, Å"] = difference.peak_shift
        found[f"{pair} peak height, %"] = 100 * (difference.peak_height_ratio - 1)
        found[f"{pair} mean |difference|"] = difference.mean_absolute_deviation
    gap = np.abs(angles.density - np.array(dft["angle"][1]))
    found["O-O-O angle, half the integral of |difference|"] = 0.5 * float(np.sum(gap * angles.widths))
    return found


def with_errors(blocks: Sequence[Any], dft: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Each number and its jackknife error over the blocks (NaN for a single one)."""
    whole, n = numbers(blocks, dft), len(blocks)
    if n < 2:
        return {name: (value, float("nan")) for name, value in whole.items()}
    left = [numbers([*blocks[:k], *blocks[k + 1 :]], dft) for k in range(n)]
    return {
        name: (value, float(np.sqrt((n - 1) * np.var([found[name] for found in left]))))
        for name, value in whole.items()
    }


LIMITS = {
    "O-O peak shift, Å": 0.03,
    "O-O peak height, %": 5.0,
    "O-O mean |difference|": 0.05,
    "O-O-O angle, half the integral of |difference|": 0.05,
}


def judged(found: dict[str, tuple[float, float]]) -> list[Verdict]:
    """Verdicts on the limits; one that lies within the error is not judged."""
    verdicts = []
    for name, limit in LIMITS.items():
        value, error = found[name]
        outcome = None if abs(abs(value) - limit) < error else abs(value) <= limit
        verdicts.append(Verdict(f"{name} within {limit:g}", f"{value:+.3f} ± {error:.3f}", outcome))
    return verdicts


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
    parser.add_argument("--seeds", type=int, nargs="+", help="a run for each (default: --seed alone)")
    parser.add_argument("--picoseconds", type=float, default=50.0, help="length of each run (default 50)")
    parser.add_argument("--equilibration", type=float, default=5.0, help="ps left out (default 5)")
    parser.add_argument("--block", type=float, default=5.0, help="ps of a block (default 5)")
    parser.add_argument("--temperature", type=float, default=330.0, help="K (default 330)")
    parser.add_argument("--repeat", type=int, nargs=3, default=(1, 1, 1), help="of the cell of 64 molecules")
    args = parser.parse_args()
    started = prepare(args)
    picoseconds, skip, block = (args.picoseconds, args.equilibration, args.block)
    if args.quick:
        picoseconds, skip, block = 0.2, 0.05, 0.05
    dft = reference(args.data)
    blocks: list[Any] = []
    by_seed: dict[str, Any] = {}
    for seed in args.seeds or [args.seed]:
        result = simulate(args, seed, round(picoseconds * 2000))
        print(result.summary())
        if result.status != "finished":
            give_up(args, "water_rdf", result.reason, started)
        interval = 0.0005 * result.config["trajectory_interval"]
        own = analyse(
            args.output / f"seed-{seed}" / "water.traj",
            dft,
            length=picoseconds,
            skip=skip,
            block=block,
            interval=interval,
        )
        blocks += own
        mean, error = result.average("temperature", skip * 1000)
        by_seed[str(seed)] = {
            "temperature_K": [mean, error], "ns_per_day": result.ns_per_day, "numbers": with_errors(own, dft)
        }  # fmt: skip
    found = with_errors(blocks, dft)
    for name, (value, error) in found.items():
        print(f"{name:50s}{value:+8.3f} ± {error:.3f}")
    curves, angles = mean_of(blocks)
    title = f"{result.n_atoms} atoms, {args.temperature:g} K, {model_name(args)}"
    draw(curves, angles, dft, title, args.output / "water_rdf.png")
    data = {
        "atoms": result.n_atoms,
        "picoseconds": picoseconds,
        "status": result.status,
        "blocks": len(blocks),
        "numbers": found,
        "seeds": by_seed,
    }
    save_record(args.output / "water_rdf.json", summarise(args, data, judged(found)), started)
    print(f"figure {args.output / 'water_rdf.png'}")


if __name__ == "__main__":
    main()
