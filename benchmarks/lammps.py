"""LAMMPS with our student, our ASE loop, and deepmd-kit's pair_style, on the same weights and the same water.

    python benchmarks/lammps.py [--atoms 12288 98304] [--ranks 1 2] [--steps 20] [--repeats 3]

Float32, NVE at 0.5 fs, a student with random weights from tables (deepmd-kit: frozen and compressed by its
own `dp`). All engines take turns; the smallest figure of the repeats counts. CPU is the user time of all
processes, which a busy machine changes little; seconds are only worth something on a quiet one. Needs the
packages of `dpa2calc[lammps]`. Set DPA2CALC_DEEPMD_PYTHON to an interpreter with deepmd-kit[lmp] (see
docs/lammps.md) to compare with it. Prints a table and writes results/lammps.json.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ase import Atoms, units
from ase.io import write
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from common import DEEPMD_PYTHON, RESULTS, machine, parser_for, save
from student import model_files, water

WARM_UP = 3
INPUT = """\
units metal
boundary p p p
atom_style atomic
newton on
read_data {data}
{style}
velocity all create 330 7 loop geom
timestep 0.0005
fix move all nve
thermo 1000
thermo_style custom step pe etotal press
run {warm_up}
run {steps}
"""
Figures = dict[str, float]


def lammps_run(command: list[str], ranks: int, folder: Path, python: str) -> Figures:
    """Seconds and CPU seconds a step of the last run of an input file, from LAMMPS's own report."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    threads = ("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS")
    environment |= dict.fromkeys(threads, "1")
    mpirun = str(Path(python).parent / "mpirun")
    done = subprocess.run(
        [mpirun, "-np", str(ranks), *command], capture_output=True, text=True, cwd=folder, env=environment
    )
    loops = re.findall(r"Loop time of (\S+) on \d+ procs for (\d+) steps", done.stdout)
    shares = re.findall(r"([\d.]+)% CPU use with", done.stdout)
    if done.returncode or len(loops) != 2:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode} (9: killed, as for lack of memory):\n"
            f"{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        )
    seconds, steps = float(loops[-1][0]), int(loops[-1][1])
    energy = re.findall(r"^\s+0\s+(\S+)", done.stdout, flags=re.MULTILINE)[0]
    return {
        "seconds": seconds / steps,
        "cpu": seconds * float(shares[-1]) / 100 * ranks / steps,
        "energy": float(energy),
    }


def ase_loop(model: Path, atoms: Atoms, steps: int) -> Figures:
    """Seconds and CPU seconds a step of ASE's velocity Verlet with our calculator, on one thread."""
    import torch

    from dpa2calc import DPA2Calculator

    torch.set_num_threads(1)
    atoms = atoms.copy()
    atoms.calc = DPA2Calculator(model, dtype="float32", compress=True, allow_unseen_elements=True)
    thermalize_momenta(atoms, 330)
    energy = atoms.get_potential_energy()
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    dynamics.run(WARM_UP)
    begin, cpu = time.perf_counter(), os.times().user
    dynamics.run(steps)
    atoms.get_stress()
    return {
        "seconds": (time.perf_counter() - begin) / steps,
        "cpu": (os.times().user - cpu) / steps,
        "energy": energy,
    }


def compare(n_atoms: int, args: argparse.Namespace, files: dict[str, Path], folder: Path) -> dict[str, Any]:
    """One row: every engine in turn, `repeats` times, the smallest figures."""
    atoms = water(n_atoms)
    data = folder / f"{len(atoms)}.data"
    write(data, atoms, format="lammps-data", specorder=["O", "H"], masses=True)

    def script(name: str, style: str) -> Path:
        path = folder / f"in.{name}.{len(atoms)}"
        style = f"{style}\npair_coeff * * O H"
        path.write_text(INPUT.format(data=data, style=style, warm_up=WARM_UP, steps=args.steps))
        return path

    ours = script("dpa2calc", "pair_style dpa2calc")
    options = ["--dtype", "float32", "--compress", "--allow-unseen-elements", "--log", "none"]
    command = [
        sys.executable,
        "-m",
        "dpa2calc",
        "lammps",
        str(ours),
        "--model",
        str(files["dpa1-l0"]),
        *options,
    ]
    found: dict[str, list[Figures]] = {}
    for _ in range(args.repeats):
        found.setdefault("ASE loop", []).append(ase_loop(files["dpa1-l0"], atoms, args.steps))
        for ranks in args.ranks:
            turns = {"LAMMPS": (command, sys.executable)}
            if "dpa1-l0 deepmd" in files:
                theirs = script("deepmd", f"pair_style deepmd {files['dpa1-l0 deepmd']}")
                lmp = str(Path(DEEPMD_PYTHON).parent / "lmp")
                turns["pair_style deepmd"] = ([lmp, "-in", str(theirs), "-log", "none"], DEEPMD_PYTHON)
            for name, (line, python) in turns.items():
                try:
                    figures = lammps_run(line, ranks, folder, python)
                except RuntimeError as error:
                    if python == sys.executable:
                        raise
                    print(f"  {name}, {ranks} processes: {error}", flush=True)
                    continue
                found.setdefault(f"{name}, {ranks} processes", []).append(figures)
    engines = {
        name: {key: min(turn[key] for turn in turns) for key in turns[0]} for name, turns in found.items()
    }
    print(f"water, {len(atoms)} atoms, {args.steps} steps")
    base = engines["ASE loop"]["cpu"]
    for name, row in engines.items():
        wall, cpu = (1e6 * row[key] / len(atoms) for key in ("seconds", "cpu"))
        share = f"{row['cpu'] / base:6.2f} x the ASE loop's CPU"
        print(
            f"  {name:32s} {wall:9.2f} us/atom  CPU {cpu:9.2f}  {share}  E0 {row['energy']:.4f} eV",
            flush=True,
        )
    return {"atoms": len(atoms), "steps": args.steps, "engines": engines}


def main() -> None:
    """Run what was asked for."""
    parser = parser_for(__doc__)
    parser.add_argument("--atoms", nargs="+", type=int, default=[12288, 98304])
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = model_files("water", folder, with_deepmd=bool(DEEPMD_PYTHON), names=("dpa1-l0",))
        rows = [compare(n, args, files, folder) | {"load": os.getloadavg()[0]} for n in args.atoms]
    known = RESULTS / "lammps.json"
    others = json.loads(known.read_text())["rows"] if known.exists() else []
    rows += [row for row in others if row["atoms"] not in [new["atoms"] for new in rows]]
    save("lammps", {"machine": machine(), "rows": sorted(rows, key=lambda row: row["atoms"])})


if __name__ == "__main__":
    main()
