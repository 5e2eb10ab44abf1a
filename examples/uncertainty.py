"""Is the uncertainty right? Predicted against real errors of the model inside the package; cases far away.

    python examples/uncertainty.py --data DATA            # writes docs/figures/uncertainty.png, prints tables
    python examples/uncertainty.py --data DATA --unseen   # sets that no head was trained on

The test frames are those that the scale was not taken from (`examples/measure_uncertainty.py`). On sets that
were never seen the head is the first of `rank_heads` that knows all elements; codes and functionals
count energies from other zero points, so a shift for each element is taken off the errors, and off what the
model is unsure of, before these are compared.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from scipy.stats import spearmanr

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.files.figures import save_figure
from dpa2calc.structures.graph_builder import graph_from_atoms
from dpa2calc.training import Dataset, load_registered, registered_sets

SETS = (
    "2D-BNC",
    "Alloy-LiAl",
    "Alloy-NbMoTaW",
    "Si-mlearn",
    "FerroEle-AIMD",
    "H2O-DPLR",
    "H2O-PBE0TS",
    "HalidePerovskite-MAPbI3-SCAN",
    "HfO2-PBE",
    "Mol-3BPA",
    "Mol-rMD17-aspirin",
    "Oxide-Al2O3",
    "SSE-PBE",
)
UNSEEN = (
    "2D-graphene",
    "Cu-ACE",
    "Fe-GAP22",
    "Alloy-MgCu",
    "H2O-superionic",
    "SSE-LiPS20",
    "SemiCond-Ga2O3",
    "Zeolite-SiO2",
    "Mol-MD17",
    "Mol-Transition1x",
)
MOST_ATOMS = 1500  # of each set
BINS = 6


def sample(data: Dataset) -> Dataset:
    """Every other frame, the second first, with at most so many atoms, spread over the set."""
    odd = data.subset(i for i in range(1, len(data), 2) if data[i].energy is not None)
    step = max(1, round(odd.n_atoms / MOST_ATOMS))
    return odd.subset(range(0, len(odd), step))


def per_atom(model: str, name: str, folder: str, *, unseen: bool) -> tuple[str, tuple[np.ndarray, ...]]:
    """The head; deviations and errors of energies (meV/atom) and of forces (meV/Å), and forces."""
    data = sample(load_registered(name, folder, split="test"))
    calc = DPA2Calculator(model, registered_sets()[name].head if not unseen else "mlearn-PBE")
    if unseen:
        richest = max((frame.atoms() for frame in data), key=lambda atoms: len(set(atoms.symbols)))
        ranked = (DPA2Calculator(model, fit.head) for fit in calc.rank_heads(richest))
        calc = next(each for each in ranked if set(data.elements) <= set(each.elements))
    results = calc.evaluate([frame.atoms() for frame in data], forces_std=True)
    sizes = np.array([frame.n_atoms for frame in data])
    std = np.array([result["energy_std"] for result in results]) / sizes
    error = np.array([result["energy"] - frame.energy for result, frame in zip(results, data)]) / sizes
    if unseen:
        error = without_shifts(error, data)
        std = np.linalg.norm(without_shifts(energy_directions(model, calc.head, data), data), axis=1)
    force_std, forces = (np.concatenate([r[k].ravel() for r in results]) for k in ("forces_std", "forces"))
    wrong = np.concatenate([(r["forces"] - frame.forces).ravel() for r, frame in zip(results, data)])
    return calc.head, (1e3 * std, 1e3 * error, 1e3 * force_std, 1e3 * wrong, 1e3 * forces)


def energy_directions(model: str, head: str, data: Dataset) -> np.ndarray:
    """By frame a vector as long as the deviation of its energy per atom, in eV; linear in the features."""
    potential = load_model(model)
    place = [each.name for each in potential.config.heads].index(head)
    rigidity, rows = potential.rigidity(place), []
    assert rigidity is not None
    with potential.using("inference"), torch.no_grad():
        for frame in data:
            graph = graph_from_atoms(frame.atoms(), potential.config)
            ((_, features),) = potential.features(graph, place)
            sums = rigidity.sums(features, graph.types).to(rigidity.factor)
            rows.append(torch.einsum("kab,kb->ka", rigidity.factor, sums).flatten() / frame.n_atoms)
    return rigidity.facts.scale * torch.stack(rows).double().numpy()


def without_shifts(values: np.ndarray, data: Dataset) -> np.ndarray:
    """Numbers of energies per atom, (n,) or (n, k), less what a shift of each element's energy explains."""
    symbols = [np.array(frame.atoms().get_chemical_symbols()) for frame in data]
    kinds = sorted({symbol for one in symbols for symbol in one})
    shares = np.array([[np.mean(one == kind) for kind in kinds] for one in symbols])
    return values - shares @ np.linalg.lstsq(shares, values, rcond=None)[0]


def binned(std: np.ndarray, error: np.ndarray, n: int) -> np.ndarray:
    """Root mean squares of deviation and error in bins of equal numbers, (n, 2)."""
    parts = np.array_split(np.argsort(std), n)
    return np.array([[np.sqrt(np.mean(values[part] ** 2)) for values in (std, error)] for part in parts])


def far_cases(model: str, folder: str) -> list[tuple[str, Atoms, DPA2Calculator]]:
    """Structures that a head should know to be strange, beside usual ones."""
    metals, aspirin = (DPA2Calculator(model, head) for head in ("mlearn-PBE", "Mol-rMD17-aspirin"))
    return [
        ("Cu at 3.63 Å", bulk("Cu", a=3.63), metals),
        ("Cu at 5.5 Å", bulk("Cu", a=5.5), metals),
        ("CuSi, rock salt", bulk("CuSi", "rocksalt", a=4.9), metals),
        ("aspirin", load_registered("Mol-rMD17-aspirin", folder, split="test")[1].atoms(), aspirin),
        ("ethanol, head of aspirin", molecule("CH3CH2OH"), aspirin),
    ]


def hot_water(student: str, folder: str) -> list[tuple[str, Atoms, DPA2Calculator]]:
    """Water with a student at 300 and at 2000 K, after half a picosecond."""
    cases = []
    for kelvin in (300, 2000):
        atoms = load_registered("H2O-PBE0TS", folder, split="test")[0].atoms()
        atoms.calc = DPA2Calculator(student)
        MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=np.random.default_rng(1))
        dynamics = Langevin(
            atoms, 0.25 * units.fs, temperature_K=kelvin, friction=0.02, rng=np.random.default_rng(1)
        )
        dynamics.run(2000)
        cases.append((f"water at {kelvin} K, student-water", atoms, atoms.calc))
    return cases


def main() -> None:
    """Evaluate, print, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of the collection")
    parser.add_argument("--model", default="default")
    parser.add_argument("--student", default="student-water")
    parser.add_argument("--unseen", action="store_true", help="sets that no head was trained on")
    parser.add_argument("-o", "--output", type=Path, help="of the figure")
    args = parser.parse_args()
    figure = "docs/figures/uncertainty-unseen.png" if args.unseen else "docs/figures/uncertainty.png"
    warnings.simplefilter("ignore")
    print(
        "| set | head | frames | E std | E error | ratio | rank | F std | F error | ratio | rank |\n"
        f"|{'---|' * 11}"
    )
    every: list[tuple[np.ndarray, ...]] = []
    names = UNSEEN if args.unseen else SETS
    for name in names:
        head, one = per_atom(args.model, name, args.data, unseen=args.unseen)
        every.append(one)
        cells = []
        for std, error in (one[:2], one[2:4]):
            (pair,) = binned(std, error, 1)
            rank = spearmanr(std, np.abs(error)).statistic
            cells += [f"{pair[0]:.2f}", f"{pair[1]:.2f}", f"{pair[1] / pair[0]:.2f}", f"{rank:.2f}"]
        print(f"| {name} | {head} | {len(one[0])} | {' | '.join(cells)} |", flush=True)
    slopes = (
        f"{name} {1 - np.sum(f * wrong) / np.sum(f * f):.2f}" for name, (*_, wrong, f) in zip(names, every)
    )
    print(f"\nslope of real on predicted forces: {', '.join(slopes)}")
    energy_std, energy_error, force_std, force_error, _ = (np.concatenate(part) for part in zip(*every))
    kinds = {
        "energy (meV/atom)": (energy_std, energy_error, BINS),
        "force (meV/Å)": (force_std, force_error, 10),
    }
    for label, (std, error, n) in kinds.items():
        pairs = binned(std, error, n)
        ratios = ", ".join(f"{error / std:.2f}" for std, error in pairs)
        rank = spearmanr(std, np.abs(error)).statistic
        print(f"\n{label}: error over deviation in {n} bins {ratios}; rank correlation {rank:.2f}")
    if not args.unseen:
        print_far(args.model, args.student, args.data)
    draw_figure(Path(args.output or figure), kinds)


def print_far(model: str, student: str, folder: str) -> None:
    """Structures far from training, beside usual ones."""
    print("\n| structure | E std (meV/atom) | largest of an atom (meV) | over its range |\n|---|---|---|---|")
    for name, atoms, calc in far_cases(model, folder) + hot_water(student, folder):
        fit = next(fit for fit in calc.rank_heads(atoms) if fit.head == calc.head)
        (result,) = calc.evaluate([atoms])
        print(
            f"| {name} | {1e3 * result['energy_std'] / len(atoms):.2f} | "
            f"{1e3 * result['energies_std'].max():.1f} | {fit.beyond:.2g} |",
            flush=True,
        )


def draw_figure(path: Path, kinds: dict[str, tuple[np.ndarray, np.ndarray, int]]) -> None:
    """Deviations and errors, one by one and binned."""

    def draw(axes: object = None) -> object:
        for axis, (label, (std, error, n)) in zip(axes, kinds.items()):  # type: ignore[call-overload]
            shown = slice(None, None, max(1, len(std) // 4000))
            axis.loglog(std[shown], np.abs(error)[shown], ".", ms=2, color="0.75", label="one by one")
            pairs = binned(std, error, n)
            axis.loglog(pairs[:, 0], pairs[:, 1], "o", label="root mean square of a bin")
            ends = np.array([pairs.min() / 2, pairs.max() * 2])
            axis.loglog(ends, ends, color="0.3", lw=0.8)
            axis.fill_between(ends, ends / 2, ends * 2, color="0.9", zorder=0)
            axis.set(
                xlabel=f"standard deviation, {label}",
                ylabel=f"error, {label}",
                xlim=(ends[0] / 2, ends[1] * 2),
                ylim=(ends[0] / 20, ends[1] * 3),
            )
        axes[0].legend()  # type: ignore[index]
        return axes

    save_figure(path, draw, panels=2, size=(10, 4.2))


if __name__ == "__main__":
    main()
