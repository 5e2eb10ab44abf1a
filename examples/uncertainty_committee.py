"""The uncertainty of a single model beside a committee of four: deviations, real errors, and what both cost.

    python examples/uncertainty_committee.py --data DATA --output runs/committee

For each of two sets four small models are trained alike, from other seeds, on its cooler frames. The single
model is the first of them. The spread of the committee is taken as it is, and also scaled as the uncertainty
of the single model is, by errors on validation frames. Both are compared with errors on frames like those of
training and on hotter ones. Prints a table, draws docs/figures/uncertainty-committee.png.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr
from uncertainty import binned

from dpa2calc import DPA2Calculator
from dpa2calc.files.figures import Axes, save_figure
from dpa2calc.model.config import DPA1Config, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.training import Dataset, TrainConfig, load_registered, train

SEEDS = (1, 2, 3, 4)
HOT = {"Mol-3BPA": ("mixedT",), "Si-mlearn": ("1518 K", "1686 K", "2530 K", "3374 K")}  # in a frame's group
MOST_ATOMS = 1500  # of the frames of a test
BINS = 8
METHODS = ("last layer", "committee", "committee, scaled")
Numbers = tuple[np.ndarray, np.ndarray]  # deviations and errors


def parts(name: str, folder: str) -> tuple[Dataset, Dataset, dict[str, Dataset]]:
    """Training and validation frames, and tests by name."""
    frames = [f for split in ("train", "test") for f in load_registered(name, folder, split=split)]  # type: ignore[arg-type]
    hot = [frame for frame in frames if any(word in frame.group for word in HOT[name])]
    cool = [frame for frame in frames if not any(word in frame.group for word in HOT[name])]
    held = {place: Dataset(tuple(cool[place::10]), name) for place in (0, 5)}  # a tenth each
    learned = Dataset(tuple(frame for i, frame in enumerate(cool) if i % 5), name)
    return learned, held[0], {"like training": few(held[5]), "hotter": few(Dataset(tuple(hot), name))}


def few(data: Dataset) -> Dataset:
    """With at most so many atoms, spread over the set."""
    return data.subset(range(0, len(data), max(1, round(data.n_atoms / MOST_ATOMS))))


def compared(calc: DPA2Calculator, data: Dataset) -> tuple[list[Numbers], float]:
    """Of energies (meV/atom) and forces (meV/Å); and milliseconds of CPU an atom."""
    began = time.process_time()
    results = calc.evaluate([frame.atoms() for frame in data], forces_std=True)
    cost = 1e3 * (time.process_time() - began) / data.n_atoms
    sizes = np.array([frame.n_atoms for frame in data])
    std, energy = (1e3 * np.array([r[key] for r in results]) / sizes for key in ("energy_std", "energy"))
    label = 1e3 * np.array([frame.energy for frame in data]) / sizes
    stds, forces = (
        1e3 * np.concatenate([r[key].ravel() for r in results]) for key in ("forces_std", "forces")
    )
    labels = 1e3 * np.concatenate([np.asarray(frame.forces).ravel() for frame in data])
    return [(std, energy - label), (stds, forces - labels)], cost


def scaled(numbers: list[Numbers], known: list[Numbers]) -> list[Numbers]:
    """With deviations multiplied by what makes others as large as their errors, in the mean."""
    factors = [np.sqrt(np.mean(error**2) / np.mean(std**2)) for std, error in known]
    return [(factor * std, error) for factor, (std, error) in zip(factors, numbers)]


def of_set(name: str, folder: str, output: Path, minutes: float) -> dict[str, list[Numbers]]:
    """Train, compare, print rows; numbers by method, of both tests together."""
    learned, validation, tests = parts(name, folder)
    config = TrainConfig(minutes=minutes, clock="cpu", batch_atoms=128)
    model = ModelConfig(
        type_map=learned.elements,
        descriptor=DPA1Config(attn_layer=0, cutoff=5.0, cutoff_smooth=1.0, neuron=(8, 16, 32), axis_neuron=8),
        heads=(HeadConfig(name=name, fitting=FittingConfig(neuron=(64, 64, 64))),),
    )
    paths = []
    for seed in SEEDS:
        place = output / name / f"seed-{seed}"
        train(model, learned, config.replace(seed=seed), output=place, validation=validation)
        paths.append(place / "model.safetensors")
    single, committee = DPA2Calculator(paths[0]), DPA2Calculator(paths[0], committee=paths[1:])
    compared(single, validation)  # compiles
    known, _ = compared(committee, validation)
    found: dict[str, list[list[Numbers]]] = {method: [] for method in METHODS}
    for test, frames in tests.items():
        (one, cost), (many, cost_many) = compared(single, frames), compared(committee, frames)
        for method, numbers, ms in zip(
            METHODS, (one, many, scaled(many, known)), (cost, cost_many, cost_many)
        ):
            found[method].append(numbers)
            cells = " | ".join(row(kind) for kind in numbers)
            print(f"| {name}, {test} | {len(frames)} | {method} | {cells} | {ms:.2f} |", flush=True)
    return {
        method: [tuple(map(np.concatenate, zip(*kind))) for kind in zip(*two)]
        for method, two in found.items()
    }  # type: ignore[misc]


def row(numbers: Numbers) -> str:
    """Cells: root mean squares of deviation and error, their ratio, rank correlation."""
    ((std, error),) = binned(*numbers, 1)
    rank = spearmanr(numbers[0], np.abs(numbers[1])).statistic
    return f"{std:.1f} | {error:.1f} | {error / std:.2f} | {rank:.2f}"


def main() -> None:
    """Train, compare, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the collection")
    parser.add_argument("--output", type=Path, default=Path("runs/committee"), help="of the models")
    parser.add_argument("--minutes", type=float, default=0.5, help="of one CPU, for each model")
    parser.add_argument("-o", "--figure", default="docs/figures/uncertainty-committee.png")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    titles = " std | error | ratio | rank |" * 2
    print(f"| set, test | frames | deviation of |{titles} ms/atom |\n|{'---|' * 12}")
    every = {name: of_set(name, args.data, args.output, args.minutes) for name in HOT}

    def draw(axes: Sequence[Axes]) -> None:
        for place, (name, methods) in enumerate(every.items()):
            for axis, kind, label in zip(axes[2 * place :], (0, 1), ("energy (meV/atom)", "force (meV/Å)")):
                ends = []
                for (method, numbers), style in zip(methods.items(), ("o-", "^:", "s--")):
                    std, error = numbers[kind]
                    may_err = std > 0.01 * std.mean()  # others are zero by symmetry
                    pairs = binned(std[may_err], error[may_err], BINS)
                    axis.loglog(pairs[:, 0], pairs[:, 1], style, ms=5, lw=0.8, label=method)
                    ends += [pairs.min(), pairs.max()]
                line = np.array([min(ends) / 1.5, max(ends) * 1.5])
                axis.loglog(line, line, color="0.3", lw=0.8)
                axis.fill_between(line, line / 2, line * 2, color="0.9", zorder=0)
                axis.set(title=name, xlabel=f"standard deviation, {label}", ylabel=f"error, {label}")
        axes[0].legend(fontsize=8)

    save_figure(args.figure, draw, panels=4, size=(17, 4.2))


if __name__ == "__main__":
    main()
