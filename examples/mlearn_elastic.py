"""Elastic and lattice constants of PBE itself, from strained perfect cells in the mlearn training sets.

    python examples/mlearn_elastic.py DATA_FOLDER [Cu Ni Mo Si Ge]
    python examples/mlearn_elastic.py DATA_FOLDER Si Ge --model default    # a model on the same cells

These are the numbers that a potential trained on the sets should give; `metals_and_semiconductors.py` lists
them. Shear strains count only where symmetry keeps the atoms free of force (fcc, bcc): in diamond the sets
hold clamped atoms, whose C44 is another quantity. The lattice constant comes from the energies: stresses of
Cu and Ni carry an offset (`dpa2calc.training.check_dataset` finds it), which slopes do not feel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms, units
from paper.science import read_set

from dpa2calc import DPA2Calculator

LARGEST = 0.05  # strain
NO_FORCE = 1e-2  # eV/Å


def strain_of(atoms: Atoms, cell: np.ndarray) -> np.ndarray:
    """Small-strain tensor (3, 3) of a cell relative to another, rotations taken off."""
    gradient = np.linalg.solve(cell, atoms.cell.array)  # rows: x' = x F
    return 0.5 * (gradient + gradient.T) - np.eye(3)


def elastic_constants(
    frames: list[Atoms], calculator: DPA2Calculator | None = None
) -> dict[str, tuple[float, int]]:
    """C11, C12 and (fcc, bcc) C44 in GPa, each with the number of strained cells behind it.

    Args:
        calculator: takes the place of the labelled stresses, on the same cells.
    """
    perfect = [frame for frame in frames if _perfect(frame)]
    if calculator is None:
        stresses = [frame.get_stress() for frame in perfect]
    else:
        stresses = [result["stress"] for result in calculator.evaluate(perfect)]
    rows: dict[str, list[tuple[float, float]]] = {"C11": [], "C12": [], "C44": []}
    for frame, label in zip(perfect, stresses):
        cell = _cube([other for other in perfect if len(other) == len(frame)])
        strain, stress = strain_of(frame, cell), label / units.GPa
        diagonal = np.diag(strain)
        shear = strain[[1, 0, 0], [2, 2, 1]]  # yz, xz, xy
        k, m = int(np.argmax(np.abs(diagonal))), int(np.argmax(np.abs(shear)))
        rest = np.delete(diagonal, k)
        if 0 < abs(diagonal[k]) < LARGEST and np.abs(rest).max() < 1e-4 and np.abs(shear).max() < 1e-4:
            rows["C11"].append((diagonal[k], stress[k]))
            rows["C12"] += [(diagonal[k], stress[j]) for j in range(3) if j != k]
        elif 0 < abs(shear[m]) < LARGEST and np.abs(np.delete(shear, m)).max() < 1e-4:
            rows["C44"].append((2 * shear[m], stress[3 + m]))
    return {name: (_slope(values), len(values)) for name, values in rows.items() if len(values) > 5}


def lattice_constant(frames: list[Atoms], c11: float, c12: float) -> tuple[float, float]:
    """Cubic cell edge of least energy (Å) for the unstrained cell's atoms, and that cell's own edge.

    Args:
        c11, c12: GPa.
    """
    perfect = [frame for frame in frames if _perfect(frame)]
    most = max({len(f) for f in perfect}, key=lambda n: sum(len(f) == n for f in perfect))
    cell = _cube([f for f in perfect if len(f) == most])
    rows = []
    for frame in perfect:
        if len(frame) == most:
            strain = strain_of(frame, cell)
            k = int(np.argmax(np.abs(np.diag(strain))))
            rest = strain.copy()
            rest[k, k] = 0.0
            if np.abs(rest).max() < 1e-4 and abs(strain[k, k]) < LARGEST:
                rows.append((strain[k, k], frame.get_potential_energy()))
    stress = _slope(rows) / np.linalg.det(cell) / units.GPa
    return float(cell[0, 0] * (1.0 - stress / (c11 + 2.0 * c12))), float(cell[0, 0])


def _perfect(frame: Atoms) -> bool:
    """A strained perfect cell: no forces, or (molybdenum, where atoms sit 0.02 Å off) named so in the set."""
    named = str(frame.info.get("group", "")).startswith("Elastic/Mo")
    return named or bool(np.linalg.norm(frame.get_forces(), axis=1).max() < NO_FORCE)


def _cube(frames: list[Atoms]) -> np.ndarray:
    """The unstrained cell (3, 3): strains along one axis leave the other edges as they are."""
    edges, counts = np.unique(np.concatenate([f.cell.lengths() for f in frames]).round(4), return_counts=True)
    return np.eye(3) * edges[np.argmax(counts)]


def _slope(values: list[tuple[float, float]]) -> float:
    """Slope at zero of a cubic polynomial."""
    x, y = np.array(values).T
    return float(np.polynomial.Polynomial.fit(x, y, 3).deriv()(0.0))


def main() -> None:
    """Print a line for each element."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with Cu-mlearn, Ni-mlearn, ...")
    parser.add_argument("elements", nargs="*", default=["Cu", "Ni", "Mo", "Si", "Ge"])
    parser.add_argument("--model", help="also its constants from the same cells")
    parser.add_argument("--head", default="mlearn-PBE", help="of the model (default mlearn-PBE)")
    args = parser.parse_args()
    for element in args.elements:
        frames = read_set(args.folder / f"{element}-mlearn")
        found = elastic_constants(frames)
        least, own = lattice_constant(frames, found["C11"][0], found["C12"][0])
        constants = {name: (round(value, 1), n) for name, (value, n) in found.items()}
        edges = f"cell edge of the set {own:.3f} Å, of least energy {least:.3f} Å: {least / own - 1:+.2%}"
        print(element, constants, edges)
        if args.model:
            found = elastic_constants(frames, DPA2Calculator(args.model, args.head, dtype="float64"))
            print(element, args.model, {name: round(value, 1) for name, (value, _) in found.items()})


if __name__ == "__main__":
    main()
