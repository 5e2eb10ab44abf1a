"""Do rows of the teacher's Hessian in the loss (Amin et al., arXiv:2501.09009) make a better student?

    python examples/hessian_rows.py --data data                 # 2 systems x 4 losses x 2 seeds
    python examples/hessian_rows.py --data data --quick

A row of the Hessian is a difference of forces, (F(x - h e) - F(x + h e)) / 2 h, where e is one coordinate of
one atom. So a student learns rows from pairs of frames, by the same compiled steps as forces. Four students
take equally many steps, of equal time, on equally many labelled frames:

- `others`: as many frames of the set (or all it has); loss on energies and forces;
- `frames`: as many copies of different frames, shaken; loss on energies and forces;
- `pairs`: the pairs; loss on energies and forces;
- `rows`: the pairs; loss on energies, forces and rows.

The teacher is a head of the default model. Errors are RMSE against it: forces of the set's test frames, the
Hessian at its minimum, and the frequencies of vibration from that. What is finished is kept.
"""

from __future__ import annotations

import argparse
import copy
import functools
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.vibrations import VibrationsData
from paper.record import once

from dpa2calc import DPA2Calculator
from dpa2calc.applications import relax
from dpa2calc.model.potential import Potential
from dpa2calc.training import Dataset, TrainConfig, load_registered, train
from dpa2calc.training.fit.loader import Budget, GraphStore, make_batch
from dpa2calc.training.fit.loss import energy_force_loss
from dpa2calc.training.fit.optimizers.optimizer import Clipper, WeightAverage, make_optimizer

HALF = 0.02  # Å, half the distance of a pair
SHAKEN = 0.02  # Å, standard deviation of the copies of `frames`
SYSTEMS = {"Mol-3BPA": "Mol-3BPA", "Si-mlearn": "mlearn-PBE"}  # set, head
LOSSES = ("others", "frames", "pairs", "rows")
WEIGHT = 0.1  # Å², of the squared error of a row beside that of a force
RATES = (2e-2, 1e-4)


def main() -> None:
    """A line for each student."""
    args = options()
    torch.set_num_threads(1)
    print("| system | loss | seed | force, meV/Å | Hessian, eV/Å² | frequencies, cm⁻¹ | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for system in args.systems:
        for seed in args.seeds:
            for loss in LOSSES:
                place = args.output / f"{system}-{loss}-{seed}.json"
                found = once(place, functools.partial(student_errors, system, loss, seed, args))
                cells = "{force:.1f} | {hessian:.3f} | {frequencies:.1f} | {seconds:.0f}".format(**found)
                print(f"| {system} | {loss} | {seed} | {cells} |", flush=True)


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"))
    add("--output", type=Path, default=Path("runs/hessian_rows"))
    add("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    add("--seeds", nargs="+", type=int, default=[1, 2])
    add("--frames", type=int, default=40, help="of the set, from which rows are taken")
    add("--rows", type=int, default=4, help="of each frame")
    add("--steps", type=int, default=2000)
    add("--batch", type=int, default=4, help="pairs in a step")
    add("--quick", action="store_true", help="a minute; the numbers mean nothing")
    args = parser.parse_args()
    if args.quick:
        args.frames, args.steps, args.seeds = 4, 4, [1]
    return args


def student_errors(system: str, loss: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Teach a student and measure it."""
    teacher = DPA2Calculator("default", SYSTEMS[system], dtype="float64")
    learned = labelled(structures_for(system, loss, seed, args), teacher)
    begin = time.process_time()
    student = taught(learned, loss == "rows", seed, args)
    seconds = time.process_time() - begin
    test = load_registered(system, args.data, split="test").sample(20, seed=0)
    minimum = resting(system, test, teacher)
    own = DPA2Calculator(student, dtype="float64").get_hessian(minimum)
    right = teacher.get_hessian(minimum)
    return {
        "force": 1000 * rms(evaluate_forces(student, [f.atoms() for f in test], teacher)),
        "hessian": rms(own - right),
        "frequencies": rms(frequencies(minimum, own) - frequencies(minimum, right)),
        "seconds": seconds,
    }


def structures_for(system: str, loss: str, seed: int, args: argparse.Namespace) -> list[Atoms]:
    """What the teacher labels; an even number."""
    data, rng = load_registered(system, args.data), np.random.default_rng(seed)
    number = args.frames if loss != "others" else min(2 * args.rows * args.frames, len(data) // 2 * 2)
    frames = [frame.atoms() for frame in data.sample(number, seed=seed)]
    if loss == "others":
        return frames
    return (shaken if loss == "frames" else paired)(frames, args.rows, rng)


def rms(values: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def shaken(frames: list[Atoms], rows: int, rng: np.random.Generator) -> list[Atoms]:
    """Two copies a row of each frame, every atom moved."""
    copies = [frame.copy() for frame in frames for _ in range(2 * rows)]
    for atoms in copies:
        atoms.positions += rng.normal(0, SHAKEN, atoms.positions.shape)
    return copies


def paired(frames: list[Atoms], rows: int, rng: np.random.Generator) -> list[Atoms]:
    """A pair a row of each frame that differ by 2 HALF in one coordinate, one after the other."""
    copies = []
    for frame in frames:
        for coordinate in rng.choice(3 * len(frame), rows, replace=False):
            for sign in (1, -1):
                moved = frame.copy()
                moved.positions.ravel()[coordinate] += sign * HALF
                copies.append(moved)
    return copies


def labelled(structures: list[Atoms], teacher: DPA2Calculator) -> Dataset:
    """The structures with the teacher's energies and forces."""
    for atoms, found in zip(structures, teacher.evaluate(structures), strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=found["energy"], forces=found["forces"])
    return Dataset.from_atoms(structures, name="teacher")


def taught(learned: Dataset, rows: bool, seed: int, args: argparse.Namespace) -> Potential:
    """A DPA-1 without attention, after `args.steps` steps of SOAP on pairs of frames in the list."""
    config = TrainConfig(steps=1, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        student = train("dpa1-l0", learned, config, output=folder, progress=False).potential
    store = GraphStore(learned, student.config, budget=Budget(1 << 30))
    rng, n_pairs = np.random.default_rng(seed), len(learned) // 2
    with student.using("training"):
        named = dict(student.named_parameters())
        optimizer, clipper = make_optimizer(named, config), Clipper(None, 3.0)
        average = WeightAverage(list(named.values()), 0.99)
        for step in range(args.steps):
            chosen = rng.choice(n_pairs, min(args.batch, n_pairs), replace=False)
            batch = make_batch(store, [frame for i in chosen for frame in (2 * i, 2 * i + 1)])
            output = student.compute(batch.graph, 0, create_graph=True)
            loss = energy_force_loss(output, batch, (1.0, 1.0, 0.0)).total
            if rows:
                wrong = output.forces - batch.forces
                firsts = np.repeat([True, False] * len(chosen), batch.n_atoms.int().numpy())
                error = (wrong[firsts] - wrong[~firsts]) / (2 * HALF)
                loss = loss + WEIGHT * error.square().mean()
            optimizer.zero_grad()
            loss.backward()
            clipper.apply(list(named.values()))
            optimizer.step(falling(step / args.steps))
            average.update(step)
    with average.applied():
        return copy.deepcopy(student)


def falling(done: float) -> float:
    """The learning rate, from the first of RATES to the second."""
    return RATES[1] + (RATES[0] - RATES[1]) * (1 + math.cos(math.pi * done)) / 2


def evaluate_forces(student: Potential, structures: list[Atoms], teacher: DPA2Calculator) -> np.ndarray:
    """Differences of forces, eV/Å."""
    calc = DPA2Calculator(student, dtype="float64")
    pairs = zip(calc.evaluate(structures), teacher.evaluate(structures), strict=True)
    return np.concatenate([own["forces"] - right["forces"] for own, right in pairs])


def resting(system: str, test: Dataset, teacher: DPA2Calculator) -> Atoms:
    """The molecule at the teacher's minimum, or the crystal of 64 atoms."""
    if system == "Si-mlearn":
        return bulk("Si", cubic=True).repeat(2)
    atoms = test[0].atoms()
    atoms.calc = teacher
    return relax(atoms, fmax=0.001, max_steps=2000, progress=False).atoms()


def frequencies(atoms: Atoms, hessian: np.ndarray) -> np.ndarray:
    """Wave numbers, 1/cm, in order; imaginary ones are negative."""
    found = VibrationsData.from_2d(atoms, hessian).get_frequencies()
    return np.sort(found.real - found.imag)


if __name__ == "__main__":
    main()
