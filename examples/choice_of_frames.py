"""Which frames should a student learn from? Four choices of as many frames, and what comes of them.

    python examples/choice_of_frames.py --data DATA --output runs/choice

One round of distillation of water: a small student has learned a few frames near 300 K; `student-water`
has moved the atoms at 300, 450 and 600 K; the teacher has labelled all frames. From them as many are chosen
by the deviation of the student's forces from the teacher's (as `distill` does), by the largest deviation of
a force that the student gives itself, by that of an atom's energy that the teacher does, or at random. The
first three take the upper half by that measure, then frames far from each other in the student's
descriptors. Then the student learns.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from dpa2calc import DPA2Calculator
from dpa2calc.model.config import DPA1Config, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.training import Dataset, TrainConfig, evaluate, load_registered, train
from dpa2calc.training.data.readers.frame_file import labelled, read_frames, write_frames
from dpa2calc.training.distill.config import DistillConfig
from dpa2calc.training.distill.selection import choose_frames, force_deviations
from dpa2calc.training.learning.selection import force_doubts

KELVIN = (300, 450, 600)
CHOSEN = 10
SEEDS = (1, 2)


def walked(start: Atoms, n: int, seed: int) -> list[Atoms]:
    """So many frames at each temperature, 25 fs apart."""
    frames = []
    for kelvin in KELVIN:
        atoms, rng = start.copy(), np.random.default_rng(seed + kelvin)
        atoms.calc = DPA2Calculator("student-water")
        MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=rng)
        dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=kelvin, friction=0.02, rng=rng)
        for _ in range(n):
            dynamics.run(50)
            frames.append(atoms.copy())
    return frames


def taught(path: Path, made: Callable[[], list[Atoms]], teacher: DPA2Calculator) -> Dataset:
    """With the teacher's labels, made once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_frames(path, [labelled(atoms, teacher) for atoms in made()])
    return Dataset.from_atoms(read_frames(path), name=path.stem)


def choices(pool: Dataset, student: Potential, teacher: DPA2Calculator, seed: int) -> dict[str, list[int]]:
    """Places in the pool by the way of choosing."""
    frames = [frame.atoms() for frame in pool]
    told = teacher.evaluate(frames)
    measures = {
        "student - teacher": force_deviations(pool, student)[1],
        "student's uncertainty": force_doubts(frames, student)[0],
        "teacher's uncertainty": np.array([r["energies_std"].max() for r in told]),
    }
    error = measures["student - teacher"]
    found = {}
    for name, values in measures.items():
        if seed == SEEDS[0]:
            print(f"{name}: correlation with the error {np.corrcoef(values, error)[0, 1]:.2f}", flush=True)
        half = DistillConfig(threshold=float(np.median(values)), upper_bound=1e9, frames_per_round=CHOSEN)
        found[name] = choose_frames(pool, values, student, half)
    found["random"] = sorted(np.random.default_rng(seed).permutation(len(pool))[:CHOSEN].tolist())
    return found


def main() -> None:
    """Explore, choose, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the collection")
    parser.add_argument("--output", type=Path, default=Path("runs/choice"))
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    teacher = DPA2Calculator("default", "H2O-PBE0TS")
    real = load_registered("H2O-PBE0TS", args.data)
    begun = [real[i].atoms() for i in range(0, len(real), 40)]
    start = taught(args.output / "start.extxyz", lambda: begun, teacher)
    pool = taught(args.output / "pool.extxyz", lambda: walked(begun[0], 25, 1), teacher)
    test = taught(args.output / "test.extxyz", lambda: walked(begun[-1], 10, 1000), teacher)
    model = ModelConfig(
        type_map=("H", "O"),
        descriptor=DPA1Config(attn_layer=0, cutoff=5.0, cutoff_smooth=1.0, neuron=(8, 16, 32), axis_neuron=8),
        heads=(HeadConfig(name="water", fitting=FittingConfig(neuron=(64, 64, 64))),),
    )
    print("| frames chosen by | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " |", flush=True)
    rows: dict[str, list[str]] = {}
    for seed in SEEDS:
        config = TrainConfig(steps=args.steps, batch_atoms=192, seed=seed)
        folder = args.output / f"seed-{seed}"
        student = train(model, start, config, output=folder / "start").potential
        rows.setdefault("before", []).append(errors(student, test))
        for name, places in choices(pool, student, teacher, seed).items():
            data = Dataset((*start.frames, *pool.subset(places).frames), "water")
            more = config.replace(learning_rate=1e-2)
            made = train(student, data, more, output=folder / name.replace(" ", "-")).potential
            rows.setdefault(name, []).append(errors(made, test))
            print(seed, name, rows[name][-1], flush=True)
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


def errors(student: Potential, test: Dataset) -> str:
    """Force RMSE in meV/Å, of all frames and of each temperature."""
    each = len(test) // len(KELVIN)
    parts = [test.subset(range(k * each, (k + 1) * each)) for k in range(len(KELVIN))]
    found = [evaluate(student, part).errors.force_rmse or 0.0 for part in (test, *parts)]
    return f"{found[0]:.1f} ({', '.join(f'{value:.0f}' for value in found[1:])})"


if __name__ == "__main__":
    main()
