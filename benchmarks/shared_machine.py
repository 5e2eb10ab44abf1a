"""What a run keeps of its speed beside others: alone, two runs side by side, beside two busy loops.

    python benchmarks/shared_machine.py [--tasks md student ...] [--seconds 3] [--rounds 3]

Each task (dynamics with the default model and with a student, 192 atoms; relaxations of 32 atoms by BFGS with
a student, half of which is NumPy's work; training of `small`; training of a student on the default model's
labels, the longest part of a distillation) runs with the package's wait policy of OpenMP and OpenBLAS
("ours") and with their own ("usual"); deepmd-kit's dynamics with the default model's weights under the same
load where DPA2CALC_DEEPMD_PYTHON names its interpreter. The rounds take turns, and figures are medians.
Prints a table and writes results/shared_machine.json. About 10 minutes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from common import DEEPMD_PYTHON, HERE, Worker, machine, parser_for, save

TASKS = ("md", "student", "relax", "train", "distill", "deepmd")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OPENBLAS_THREAD_TIMEOUT")
# What GNU's runtime and OpenBLAS take without any setting: the package leaves numbers of the user's alone.
USUAL = {"GOMP_SPINCOUNT": "300000", "OPENBLAS_THREAD_TIMEOUT": "26"}


class Job(Worker):
    """A worker that is asked for its rate again and again."""

    def __init__(self, kind: str, policy: str, model: str, structures: Path, threads: int):
        environment = {key: value for key, value in os.environ.items() if key not in WAITING}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS"), str(threads))
        environment |= {"DP_INTER_OP_PARALLELISM_THREADS": "1"} | (USUAL if policy == "usual" else {})
        if kind == "deepmd":
            environment.pop("PYTHONPATH", None)
        python = DEEPMD_PYTHON if kind == "deepmd" else sys.executable
        super().__init__(python, "shared", kind, model, structures, threads, environment=environment)


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Processes that do nothing, without a pause."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def rates(first: Job, second: Job, seconds: float) -> dict[str, float]:
    """Rates a second alone, beside an equal run (the slower of the two), and beside two busy loops."""

    def together(*jobs: Job) -> float:
        for job in jobs:
            job.ask(seconds)
        return min(job.answer()["rate"] for job in jobs)

    found = {"alone": together(first), "two runs": together(first, second)}
    with busy_loops(2):
        found["busy loops"] = together(first)
    return found


def measure(kind: str, model: str, structures: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one task, one for each policy; the policies take turns."""
    policies = ("usual",) if kind == "deepmd" else ("ours", "usual")
    jobs = {p: [Job(kind, p, model, structures, args.threads) for _ in range(2)] for p in policies}
    found: dict[str, list[dict[str, float]]] = {p: [] for p in policies}
    try:
        for job in (job for pair in jobs.values() for job in pair):
            job.answer()
        for number in range(args.rounds):
            for policy, pair in jobs.items():
                found[policy].append(rates(pair[0], pair[1], args.seconds))
                shown = ", ".join(f"{key} {value:.2f}/s" for key, value in found[policy][-1].items())
                print(f"  {kind}, {policy}, round {number + 1}: {shown}", file=sys.stderr, flush=True)
    finally:
        for pair in jobs.values():
            for job in pair:
                job.close()
    rows = []
    for policy, rounds in found.items():
        middle = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        kept = {f"kept, {key}": middle[key] / middle["alone"] for key in ("two runs", "busy loops")}
        rows.append({"task": kind, "policy": policy, "rounds": rounds} | middle | kept)
    if len(rows) == 2:
        rows[0]["alone against usual"] = rows[0]["alone"] / rows[1]["alone"]
    return rows


def inputs(folder: Path) -> dict[str, tuple[str, Path]]:
    """Model and structures of each task; the frames have the default model's labels."""
    from dpa2calc import DPA2Calculator, load_model
    from dpa2calc.deepmd.write import write_deepmd

    water = read(HERE.parent / "examples" / "data" / "water64.extxyz")
    rng, frames = np.random.default_rng(0), []
    for _ in range(6):
        frame = water.copy()
        frame.positions += rng.normal(0.0, 0.03, frame.positions.shape)
        frames.append(frame)
    results = DPA2Calculator(head="H2O-PBE0TS", device="cpu").evaluate(frames)
    for frame, result in zip(frames, results):
        labels = {key: result[key] for key in ("energy", "forces", "stress")}
        frame.calc = SinglePointCalculator(frame, **labels)
    structure, training, model = folder / "water.extxyz", folder / "train.extxyz", folder / "default.pt"
    write(structure, water)
    write(training, frames)
    if DEEPMD_PYTHON:
        write_deepmd(load_model("default", "H2O-PBE0TS"), model)
    made = dict.fromkeys(("md", "student", "relax"), ("-", structure))
    return made | dict.fromkeys(("train", "distill"), ("-", training)) | {"deepmd": (str(model), structure)}


def main() -> None:
    """Run the chosen tasks and print the table."""
    parser = parser_for(__doc__)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="shared_machine", help="name of the JSON file in results/")
    args = parser.parse_args()
    tasks = [task for task in args.tasks if task != "deepmd" or DEEPMD_PYTHON]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        made = inputs(Path(name))
        about = machine()
        for task in tasks:
            rows += measure(task, *made[task], args)
            options = {"seconds": args.seconds, "rounds": args.rounds, "threads": args.threads}
            path = save(args.name, {"machine": about, "options": options, "rows": rows})
    print("task     waiting  alone 1/s  kept: two runs  busy loops  alone against usual")
    for row in rows:
        against = f"{row['alone against usual']:.3f}" if "alone against usual" in row else ""
        print(
            f"{row['task']:8} {row['policy']:7} {row['alone']:10.2f} {row['kept, two runs']:15.2f} "
            f"{row['kept, busy loops']:11.2f}  {against}"
        )
    print("written:", path)


if __name__ == "__main__":
    main()
