"""Liquid water on the weights inside the package: 64 molecules, NVT at 330 K, g_OO beside the DFT.

    python examples/01_water_md.py [--picoseconds 2] [--output water-md]

Writes water.traj, water.csv (energy and temperature), md.png and rdf.png to the output folder and
prints a summary. A run that was stopped resumes when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.io import read

from dpa2calc import DPA2Calculator
from dpa2calc.applications import radial_distribution, run_md

DATA = Path(__file__).parent / "data"


def main() -> None:
    """Run, analyse, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--picoseconds", type=float, default=2.0, help="length of the run (default 2)")
    parser.add_argument("--temperature", type=float, default=330.0, help="K (default 330)")
    parser.add_argument("--model", default="default")
    parser.add_argument("--head", default="H2O-PBE0TS")
    parser.add_argument("--output", type=Path, default=Path("water-md"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)

    atoms = read(DATA / "water64.extxyz")
    atoms.calc = DPA2Calculator(args.model, args.head)
    result = run_md(
        atoms,
        steps=round(args.picoseconds * 1000 / 0.5),
        timestep_fs=0.5,
        temperature=args.temperature,
        thermostat="langevin",
        trajectory_interval=20,
        min_distance=0.65,  # closer than any bond of water: the model has left what it knows
        temperature_limit=2 * args.temperature,
        trajectory=args.output / "water.traj",
        log=args.output / "water.csv",
        restart=args.output / "restart.npz",
    )

    frames = read(args.output / "water.traj", index=":")
    frames = frames[len(frames) // 5 :]  # the first fifth is equilibration
    rdf = radial_distribution(frames, "O-O", r_max=6.0, bin_width=0.05)
    reference = json.loads((DATA / "water_pbe0ts_rdf.json").read_text())
    dft = (np.array(reference["r"]), np.array(reference["g"]))
    axes = rdf.plot()
    axes.plot(*dft, color="k", linestyle="--", label="PBE0+TS, DFT frames")
    axes.legend()
    axes.figure.savefig(args.output / "rdf.png", dpi=150)
    result.plot().figure.savefig(args.output / "md.png", dpi=150)
    plt.close("all")

    comparison = rdf.compare(dft)
    print(result.summary())
    position, height = rdf.first_peak()
    dft_height, dft_position = height / comparison.peak_height_ratio, position - comparison.peak_shift
    print(f"g_OO first peak    {height:.2f} at {position:.3f} Å")
    print(f"                   {dft_height:.2f} at {dft_position:.3f} Å in the DFT frames")
    print(f"                   mean |difference| of g_OO {comparison.mean_absolute_deviation:.3f}")
    print(f"figures            {args.output / 'rdf.png'}, {args.output / 'md.png'}")


if __name__ == "__main__":
    main()
