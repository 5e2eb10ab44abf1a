"""What `screen` costs beside a plain loop: many small crystals, in one process, in two, on a Dask cluster.

    python examples/screening.py --evaluate 10000 --relax 1000    # about 4 minutes of CPU time

--dask adds a LocalCluster of two processes (dask.distributed); --ending parquet writes Parquet.

Alloys of 4 atoms with ASE's EMT (a calculator of 1 ms, so that the overhead shows). Prints CPU time per
structure, of all processes, and checks that all ways give the same energies.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
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


@contextmanager
def no_executor() -> Iterator[None]:
    """This process."""
    yield None


@contextmanager
def two_processes() -> Iterator[Executor]:
    """A pool of two."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@contextmanager
def dask_cluster() -> Iterator[Executor]:
    """Two processes of a LocalCluster."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            yield client.get_executor()


def compare(task: str, number: int, folder: Path, ways: dict, ending: str) -> None:
    """CPU time of each way, the start of its processes included."""
    structures = alloys(number)
    options = {"fmax": 0.05} if task == "relax" else {}
    before = cpu_seconds()
    expected = loop(task, structures)
    spent = {"plain loop": cpu_seconds() - before}
    for name, way in ways.items():
        before = cpu_seconds()
        with way() as executor:
            words = {"calculator": EMT(), "executor": executor, "progress": False, **options}
            result = screen(structures, task, output=folder / f"{task}-{name}.{ending}", **words)
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
    parser.add_argument("--ending", default="jsonl", choices=("jsonl", "db", "parquet"))
    parser.add_argument("--dask", action="store_true")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    ways = {"screen": no_executor, "screen, 2 processes": two_processes}
    if args.dask:
        ways["screen, Dask"] = dask_cluster
    with tempfile.TemporaryDirectory() as folder:
        compare("evaluate", args.evaluate, Path(folder), ways, args.ending)
        compare("relax", args.relax, Path(folder), ways, args.ending)


if __name__ == "__main__":
    main()
