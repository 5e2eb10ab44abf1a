"""Blocks of atoms on the package's own threads against one team of OpenMP threads, and against one thread.

    python benchmarks/threads.py [--models paper medium small] [--systems "water 192"] [--threads 2]

The three ways take turns in one process. Smallest times of energy, forces and virial in float32, CPU times,
and waits: how often a thread of the process went to sleep in one call (voluntary context switches), which
happens when Python's lock is handed over, at the end of a parallel region, and between two calls of kernels.
Run it on cores that nothing else uses. Prints a table and writes results/threads.json. About a minute.
"""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dpa2calc.kernels import blocks  # isort: skip  # before torch: it says how OpenMP's threads wait

import torch
from common import TYPE_MAP, machine, parser_for, save, structures

from dpa2calc.kernels.threads import Workers
from dpa2calc.model.config.presets import preset
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph_builder import graph_from_atoms


class Team(Workers):
    """No threads of its own: all blocks in the caller, where OpenMP's team shares each operation."""

    @property
    def count(self) -> int:
        return 1


WAYS = ("one thread", "OpenMP's team", "own threads")


@contextmanager
def way(name: str, threads: int) -> Iterator[None]:
    """The kernels of inference computed in one of the three ways."""
    before, workers = torch.get_num_threads(), blocks.WORKERS
    torch.set_num_threads(1 if name == "one thread" else threads)
    if name == "OpenMP's team":
        blocks.WORKERS = Team()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        blocks.WORKERS = workers


def measure(
    model: str, system: str, threads: int, rounds: int, ways: Sequence[str]
) -> list[dict[str, float | int | str]]:
    """A row for each way."""
    torch.manual_seed(1)
    potential = Potential(preset(model, TYPE_MAP), dtype=torch.float32).use("inference")
    graph = graph_from_atoms(structures()[system], potential.config)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways:
            with way(name, threads):
                potential.compute(graph)  # caches are those of this way
                begin, cpu = time.perf_counter(), time.process_time()
                waits = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
                potential.compute(graph)
                waits = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - waits
                row = (time.perf_counter() - begin, time.process_time() - cpu, waits)
            if number:  # the first round compiles
                found[name].append(row)
    rows: list[dict[str, float | int | str]] = []
    for name, values in found.items():
        seconds, cpu, waits = (min(column) for column in zip(*values))
        row_of = {"model": model, "system": system, "threads": 1 if name == "one thread" else threads}
        rows.append(row_of | {"way": name, "seconds": seconds, "cpu": cpu, "waits": waits})
    return rows


def main() -> None:
    """Run the chosen combinations."""
    parser = parser_for(__doc__)
    parser.add_argument("--models", nargs="+", default=("paper", "medium", "small"))
    parser.add_argument("--systems", nargs="+", default=("water 192",))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--name", default="threads", help="name of the JSON file in results/")
    args = parser.parse_args()
    rows: list[dict[str, float | int | str]] = []
    path: Path | None = None
    about = machine()
    print("model    system       way             ms a call   CPU ms   waits   against first way")
    for model in args.models:
        for system in args.systems:
            mine = measure(model, system, args.threads, args.rounds, args.ways)
            for row in mine:
                gain = float(mine[0]["seconds"]) / float(row["seconds"])
                print(
                    f"{model:8} {system:12} {row['way']:14} {1e3 * float(row['seconds']):10.1f} "
                    f"{1e3 * float(row['cpu']):8.1f} {row['waits']:7} {gain:10.2f}",
                    flush=True,
                )
            rows += mine
            path = save(args.name, {"machine": about, "rows": rows})
    print("written:", path, file=sys.stderr)


if __name__ == "__main__":
    main()
