"""Path-integral water at 300 K by i-PI and `student-water`, beside the same water with classical nuclei.

    pip install ipi
    python examples/path_integral_water.py --beads 8 --picoseconds 0.5 --output water-pimd

64 molecules, PILE thermostat, 0.25 fs; i-PI calls this package in its own process (`ffdirect`), all beads in
one call. Prints the kinetic energy of the protons (centroid virial; classical: 3/2 kT) and the first peak
of g_OH, and writes both curves to g_oh.png. The first third of each run is left out. Eight beads give about
three quarters of the quantum kinetic energy of an O-H stretch; 32 are converged.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.io import read, write

from dpa2calc.applications import RadialDistribution, radial_distribution
from dpa2calc.dynamics.averages import block_error
from dpa2calc.integrations import ipi_driver

DATA = Path(__file__).parent / "data"
INPUT = """\
<simulation verbosity='low'>
  <output prefix='run'>
    <properties filename='out' stride='4'>
      [ time{{picosecond}}, temperature{{kelvin}}, conserved{{electronvolt}}, kinetic_cv{{electronvolt}}(H) ]
    </properties>
    <trajectory filename='pos' stride='20' format='ase'> positions </trajectory>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> {seed} </seed></prng>
  <ffdirect name='dpa2'>
    <pes> custom </pes> <pes_path> {driver} </pes_path> <batch_size> {beads} </batch_size>
    <parameters> {{ template: water.extxyz, model: {model} }} </parameters>
  </ffdirect>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase'> water.extxyz </file>
      <velocities mode='thermal' units='kelvin'> {temperature} </velocities>
    </initialize>
    <forces><force forcefield='dpa2'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> {timestep} </timestep>
        <thermostat mode='pile_g'><tau units='femtosecond'> 50 </tau></thermostat>
      </dynamics>
    </motion>
    <ensemble><temperature units='kelvin'> {temperature} </temperature></ensemble>
  </system>
</simulation>
"""


@dataclass(frozen=True)
class Run:
    """What one run gives: kinetic energy of a proton in meV with its error, and g_OH."""

    kinetic: float
    kinetic_error: float
    curve: RadialDistribution


def simulate(folder: Path, beads: int, args: argparse.Namespace) -> Run:
    """Run i-PI and analyse; the first third is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    atoms = read(DATA / "water64.extxyz")
    write(folder / "water.extxyz", atoms)
    text = INPUT.format(
        beads=beads, steps=round(1000 * args.picoseconds / args.timestep), timestep=args.timestep,
        seed=args.seed, temperature=args.temperature, model=args.model, driver=ipi_driver.__file__,
    )  # fmt: skip
    (folder / "input.xml").write_text(text)
    subprocess.run([Path(sys.executable).parent / "i-pi", "input.xml"], cwd=folder, check=True)
    table = np.loadtxt(folder / "run.out", ndmin=2)
    kinetic = 1000 * table[len(table) // 3 :, 3] / atoms.symbols.search("H").size  # meV a proton
    blocks = [block.mean() for block in np.array_split(kinetic, 5)]
    frames = []
    for path in sorted(folder.glob("run.pos_*")):  # a file a bead
        of_bead = read(path, ":", format="extxyz")
        frames += of_bead[len(of_bead) // 3 :]
    curve = radial_distribution(frames, "O-H", r_max=5.0, bin_width=0.04)
    return Run(float(kinetic.mean()), float(block_error(np.array(blocks))), curve)


def main() -> None:
    """Both runs, a table and a figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--beads", type=int, default=8)
    parser.add_argument("--picoseconds", type=float, default=0.5, help="length of each run (default 0.5)")
    parser.add_argument("--timestep", type=float, default=0.25, help="fs (default 0.25)")
    parser.add_argument("--temperature", type=float, default=300.0, help="K (default 300)")
    parser.add_argument("--model", default="student-water")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("water-pimd"))
    args = parser.parse_args()
    _, ax = plt.subplots(figsize=(6, 4))
    classical = 1500 * units.kB * args.temperature
    for name, beads in (("classical", 1), (f"{args.beads} beads", args.beads)):
        run = simulate(args.output / name.replace(" ", "-"), beads, args)
        peak = int(run.curve.g.argmax())
        height, place = run.curve.g[peak], run.curve.r[peak]
        print(
            f"{name:10s} kinetic energy of a proton {run.kinetic:.1f} ± {run.kinetic_error:.1f} meV "
            f"(3/2 kT: {classical:.1f}), first peak of g_OH {height:.1f} at {place:.2f} Å"
        )
        ax.plot(run.curve.r, run.curve.g, label=name)
    ax.set(xlabel="r (Å)", ylabel="g_OH", ylim=(0, 4), xlim=(0.7, 5))
    ax.legend(frameon=False)
    ax.figure.savefig(args.output / "g_oh.png", dpi=150)


if __name__ == "__main__":
    main()
