"""Curves of two atoms: how often energy and force of a head turn, by the measures of ml-peg's "diatomics".

    python examples/diatomics.py --model default --heads Inorganic-PBE Mol-SPICE-drug
    python examples/diatomics.py --model runs/mine/model.safetensors

Each element of a head with itself, 100 distances from 0.18 to 6 Å, float64. A bond has one minimum, its force
changes sign once, and its energy rises on both sides (Spearman's coefficient of energy and distance -1 on the
repulsive side, +1 on the other). Writes diatomics.json and a figure of some curves.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from paper.record import save_record
from scipy.signal import find_peaks
from scipy.stats import spearmanr

from dpa2calc import DPA2Calculator

DISTANCES = np.linspace(0.18, 6.0, 100)
QUIET_FORCE, QUIET_CURVATURE = 0.01, 0.5  # eV/Å, eV/Å²: smaller values have no sign
PROMINENCE = 0.1  # eV, of a minimum
SHOWN = ("H", "C", "O", "Si", "Cu", "Pb")


def main() -> None:
    """Curves and measures of every head."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="default", help="a name or a file")
    parser.add_argument("--heads", nargs="+", default=[None], help="of a model with several")
    parser.add_argument("--output", type=Path, default=Path("runs/diatomics"))
    args = parser.parse_args()
    started, curves = time.time(), {}
    for head in args.heads:
        calculator = DPA2Calculator(args.model, head=head, dtype="float64")
        curves[calculator.head] = {symbol: curve(calculator, symbol) for symbol in calculator.elements}
    found = {head: averages(own) for head, own in curves.items()}
    args.output.mkdir(parents=True, exist_ok=True)
    save_record(args.output / "diatomics.json", {"model": args.model, "heads": found}, started)
    draw(curves, args.output / "diatomics.png")
    for head, means in found.items():
        print(f"{head}: " + ", ".join(f"{name} {value:.3g}" for name, value in means.items()))


def curve(calculator: DPA2Calculator, symbol: str) -> np.ndarray:
    """Energy (eV) and force on the second atom along the bond (eV/Å), one row a distance."""
    pairs = [Atoms([symbol] * 2, [(0, 0, 0), (0, 0, distance)]) for distance in DISTANCES]
    results = calculator.evaluate(pairs)
    return np.array([(r["energy"], r["forces"][1, 2]) for r in results])


def averages(curves: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over the elements."""
    rows = [measures(energy, force) for energy, force in (values.T for values in curves.values())]
    means = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
    return {"elements": len(rows)} | means


def measures(energy: np.ndarray, force: np.ndarray) -> dict[str, float]:
    """Of one curve; a coefficient without distances on its side is NaN."""
    well = int(np.argmin(energy))
    curvature = np.gradient(np.gradient(energy, DISTANCES), DISTANCES)
    sides = {"repulsive": slice(None, well + 1), "attractive": slice(well + 1, None)}
    coefficients = {
        f"Spearman, {name}": spearmanr(DISTANCES[side], energy[side]).statistic
        if len(energy[side]) > 1
        else np.nan
        for name, side in sides.items()
    }
    return {
        "force flips": turns(force, QUIET_FORCE),
        "minima": len(find_peaks(-energy, prominence=PROMINENCE, width=1)[0]),
        "inflections": turns(curvature, QUIET_CURVATURE),
        **coefficients,
    }


def turns(values: np.ndarray, quiet: float) -> int:
    """Changes of sign, among values that are not quiet."""
    signs = np.sign(values[np.abs(values) > quiet])
    return int((signs[1:] != signs[:-1]).sum())


def draw(curves: dict[str, dict[str, Any]], path: Path) -> None:
    """Energies of some elements over that at 6 Å, a panel a head."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        1, len(curves), figsize=(5 * len(curves), 4), squeeze=False, layout="constrained"
    )
    for axis, (head, own) in zip(axes[0], curves.items()):
        for symbol in [s for s in SHOWN if s in own]:
            energy = own[symbol][:, 0]
            axis.plot(DISTANCES, energy - energy[-1], label=symbol)
        axis.set(xlabel="distance (Å)", ylabel="energy over that at 6 Å (eV)", ylim=(-8, 20), title=head)
        axis.legend()
    fig.savefig(path, dpi=120)
    plt.close(fig)


if __name__ == "__main__":
    main()
