"""Attack on everything that resumes: kill -9 before a file operation, then the same command again.

    python benchmarks/attack/kills.py --kills 20
    python benchmarks/attack/kills.py --tasks run_md train --kills 5 --twice

A child process works in an empty folder and kills itself before its n-th file operation (opening for
writing, renaming, truncating, removing, making a folder) or evaluation of the calculator. The same work is
then started again until it ends, and what it made is compared with that of a run that nobody killed:
positions, weights and results to the last bit. Prints a line a kill and a table; the exit code is 1 if
anything differed or would not resume.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Task = Callable[[Path], str]
EVALUATION = "attack.evaluation"


def crystal(size: int = 2) -> Any:
    """Rattled copper with ASE's EMT."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    class Audited(EMT):
        """EMT whose every evaluation is a place to be killed at."""

        def calculate(self, *args: Any, **kwargs: Any) -> None:
            sys.audit(EVALUATION)
            super().calculate(*args, **kwargs)

    atoms = bulk("Cu", "fcc", a=3.65, cubic=True) * (size, size, size)
    atoms.rattle(0.02, seed=1)
    atoms.calc = Audited()
    return atoms


def labelled(n: int) -> Any:
    """A data set of n frames with EMT's labels."""
    from ase.calculators.singlepoint import SinglePointCalculator

    from dpa2calc.training import Dataset

    frames = []
    for seed in range(n):
        atoms = crystal(1)
        atoms.rattle(0.1, seed=seed)
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return Dataset.from_atoms(frames, name="cu")


def content(*values: Any) -> str:
    """A hash of arrays, of files, and of the tensors of checkpoints (their text holds times and paths)."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, Path) and value.suffix == ".safetensors":
            tensors = load_file(value)
            found.update(b"".join(tensors[name].tobytes() for name in sorted(tensors)))
        else:
            found.update(
                value.read_bytes() if isinstance(value, Path) else np.ascontiguousarray(value).tobytes()
            )
    return found.hexdigest()[:16]


# -- the work: each returns a hash of what it made ------------------------------------------------------


def run_md(folder: Path, *, ending: str = "traj", **options: Any) -> str:
    """Dynamics with trajectory, log and restart file."""
    from ase.io import read

    from dpa2calc.applications import run_md as work

    result = work(
        crystal(), steps=60, temperature=300, sync_interval=10, restart_seconds=1e-4, log_interval=5,
        trajectory_interval=5, trajectory=folder / f"md.{ending}", log=folder / "md.csv",
        restart=folder / "md.npz", progress=False, **options,
    )  # fmt: skip
    frames = read(folder / f"md.{ending}", ":")
    return content(result.positions, result.momenta, *(f.positions for f in frames), folder / "md.csv")


def run_npt(folder: Path) -> str:
    """The same at constant pressure, with a text trajectory."""
    return run_md(folder, ending="extxyz", ensemble="npt")


def relax(folder: Path) -> str:
    """A relaxation with its trajectory; the path after a resume is another, the minimum is not."""
    from dpa2calc.applications import relax as work

    result = work(crystal(), relax="cell", fmax=1e-4, trajectory=folder / "relax.traj", progress=False)
    return f"{result.converged} {result.energy:.4f}"


def phonons(folder: Path) -> str:
    """Displacements kept in a folder."""
    from dpa2calc.applications.crystals.phonons import phonons as work

    atoms = crystal(1)
    result = work(atoms, min_length=6, relax="positions", folder=folder / "ph", progress=False)
    return content(np.round(result.force_constants, 8))


def eos(folder: Path) -> str:
    """Volumes kept in a folder."""
    from dpa2calc.applications.crystals.eos import equation_of_state

    return content(
        np.round(equation_of_state(crystal(1), folder=folder / "eos", progress=False).energies, 10)
    )


def train(folder: Path) -> str:
    """A training with checkpoints."""
    from dpa2calc.training import TrainConfig
    from dpa2calc.training import train as work

    config = TrainConfig(
        steps=9, batch_atoms=8, checkpoint_every=3, validate_every=3, warmup_steps=1, log_every=2,
        statistics_frames=4,
    )  # fmt: skip
    work("dpa1-l0", labelled(6), config, output=folder / "run", validation=labelled(2), progress=False)
    return content(folder / "run" / "last.safetensors", folder / "run" / "best.safetensors")


def finetune(folder: Path) -> str:
    """Fine-tuning of the shipped model."""
    from dpa2calc.training import FinetuneConfig
    from dpa2calc.training import finetune as work

    config = FinetuneConfig(
        steps=4, batch_atoms=8, checkpoint_every=2, warmup_steps=1, start_head="mlearn-PBE",
        zero_shot_frames=2,
    )  # fmt: skip
    work("default", labelled(4), config, output=folder / "run", progress=False)
    return content(folder / "run" / "last.safetensors")


def distill(folder: Path) -> str:
    """Two rounds of a distillation of EMT."""
    from dpa2calc.training import DistillConfig, MDCondition, TrainConfig
    from dpa2calc.training import distill as work

    atoms = crystal(1)
    result = work(
        atoms.calc, [atoms], student="dpa1-l0",
        md=MDCondition(temperature=(300,), timestep=2.0, steps=20, sample_interval=5),
        train=TrainConfig(steps=4, batch_atoms=8, checkpoint_every=2, warmup_steps=1),
        config=DistillConfig(max_rounds=2, threshold=0.01), output=folder / "student",
        progress=False,
    )  # fmt: skip
    return content(Path(result.student))


TASKS: dict[str, Task] = {
    task.__name__: task for task in (run_md, run_npt, relax, phonons, eos, train, finetune, distill)
}


# -- killing --------------------------------------------------------------------------------------------


def child(task: str, folder: Path, kill_at: int) -> None:
    """Do the work; die before file operation number `kill_at` inside the folder (0 = never)."""
    root, count = str(folder), 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else "r" not in str(mode)
            counts = bool(writes) and str(path).startswith(root)
        elif event in ("os.rename", "os.truncate", "os.remove", "os.mkdir"):
            counts = str(arguments[0]).startswith(root)
        else:
            counts = event == EVALUATION
        if counts:
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    print(json.dumps({"made": TASKS[task](folder), "operations": count}))


def start(task: str, folder: Path, kill_at: int = 0) -> dict[str, Any] | None:
    """Run a child; its report, None where it was killed.

    Raises:
        RuntimeError: it ended with an error of its own.
    """
    command = [sys.executable, __file__, "--child", task, str(folder), "--kill-at", str(kill_at)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:200])
    return json.loads(done.stdout.splitlines()[-1])


def attack(task: str, kills: int, twice: bool, rng: np.random.Generator) -> dict[str, int]:
    """Kill one task at points spread over its file operations."""
    with tempfile.TemporaryDirectory() as where:
        right = start(task, Path(where))
    assert right is not None
    last = right["operations"]
    points = sorted({int(p) for p in np.linspace(1, last, kills)} if kills < last else range(1, last + 1))
    counts = {"operations": last, "kills": 0, "failures": 0}
    for point in points:
        with tempfile.TemporaryDirectory() as where:
            try:
                died = [start(task, Path(where), point) is None]
                if twice:
                    died.append(start(task, Path(where), int(rng.integers(1, last))) is None)
                again = start(task, Path(where))
                said = "ok" if again and again["made"] == right["made"] else "DIFFERS"
            except RuntimeError as error:
                said = f"DOES NOT RESUME: {error}"
        counts["kills"] += sum(died)
        counts["failures"] += said != "ok"
        print(f"{task}, killed before operation {point} of {last}: {said}", flush=True)
    return counts


def main() -> None:
    """Attack each task, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--kills", type=int, default=10, help="points of each task (default 10)")
    parser.add_argument("--twice", action="store_true", help="kill the resumed run as well")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON of the counts")
    parser.add_argument("--child", nargs=2, metavar=("TASK", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--kill-at", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]), args.kill_at)
        return
    rng, started = np.random.default_rng(args.seed), time.time()
    report = {task: attack(task, args.kills, args.twice, rng) for task in args.tasks}
    for task, counts in report.items():
        print(f"{task:12s}" + "".join(f"{key} {value:5d}   " for key, value in counts.items()))
    print(f"{sum(c['kills'] for c in report.values())} kills in {time.time() - started:.0f} s")
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(any(counts["failures"] for counts in report.values()))


if __name__ == "__main__":
    main()
