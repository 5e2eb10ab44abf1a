"""What `screen` costs beside a plain loop: many small crystals, in this process and in two.

    python examples/screening.py --evaluate 10000 --relax 1000

Alloys of 4 atoms with ASE's EMT (a calculator of 1 ms, so that the overhead shows). Prints CPU time per
structure, and checks that all ways give the same energies.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from dpa2calc.applications import relax, screen

METALS = ("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al")


def alloys(number: int) -> list[Atoms]:
    """Rattled cells of 4 atoms of one to four metals."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(number):
        atoms = bulk(str(rng.choice(METALS)), cubic=True)
        atoms.symbols = rng.choice(METALS, size=4)
        atoms.rattle(0.05, rng=rng)
        made.append(atoms)
    return made


def cpu_seconds() -> float:
    """Of this process and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def loop(task: str, structures: list[Atoms]) -> list[float]:
    """The same work without `screen`."""
    energies = []
    calculator = EMT()
    for atoms in structures:
        own = atoms.copy()
        own.calc = calculator
        if task == "relax":
            energies.append(relax(own, progress=False, fmax=0.05).energy)
        else:
            own.get_forces()
            energies.append(own.get_potential_energy())
    return energies


def compare(task: str, number: int, folder: Path) -> None:
    """Time the three ways."""
    structures = alloys(number)
    options = {"fmax": 0.05} if task == "relax" else {}
    before = cpu_seconds()
    expected = loop(task, structures)
    spent = {"plain loop": cpu_seconds() - before}
    for name, processes in (("screen", 0), ("screen, 2 processes", 2)):
        before = cpu_seconds()
        pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) if processes else None
        output = folder / f"{task}-{processes}.jsonl"
        result = screen(
            structures, task, calculator=EMT(), executor=pool, output=output, progress=False, **options
        )
        if pool is not None:
            pool.shutdown()
        spent[name] = cpu_seconds() - before
        found = {record["name"]: record["results"]["energy"] for record in result.records()}
        assert np.allclose([found[f"structure {i}"] for i in range(number)], expected, atol=1e-9)
    for name, seconds in spent.items():
        print(f"{task:9s} {number:6d} structures  {name:20s} {1000 * seconds / number:7.2f} ms of CPU each")


def main() -> None:
    """Both tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluate", type=int, default=10000)
    parser.add_argument("--relax", type=int, default=1000)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        compare("evaluate", args.evaluate, Path(folder))
        compare("relax", args.relax, Path(folder))


if __name__ == "__main__":
    main()
