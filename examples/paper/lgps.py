"""The cell of Li10GeP2S12, and published numbers on how its lithium moves."""

from __future__ import annotations

import csv
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.spacegroup import Spacegroup

# P4_2/nmc (137, first setting), sites of Kamaya et al., Nat. Mater. 10, 682 (2011); S rounded to 0.005.
# Ge and P share the 4d site: here Ge takes the two with x = 1/2, as in the training set (from mp-696129).
LITHIUM = {"16h": (0.2563, 0.2718, 0.1832), "4d": (0.0, 0.5, 0.9446), "8f": (0.2463, 0.2463, 0.0)}
GE_P = (0.0, 0.5, 0.6907)
PHOSPHORUS = (0.0, 0.0, 0.5)
SULPHUR = ((0.0, 0.19, 0.41), (0.0, 0.295, 0.095), (0.0, 0.70, 0.79))

# a, c in Å of the tetragonal cell of 50 atoms
CELLS = {
    "pbe": (8.788, 12.658),  # of the PBE frames at the start of the SSE-PBE training set
    "experiment": (8.694, 12.599),  # Kamaya et al. 2011, room temperature
}


@dataclass(frozen=True)
class Published:
    """A published value: diffusion coefficient (cm²/s) at a temperature (K), or an activation energy (eV)."""

    source: str
    kind: str  # "experiment", "AIMD" or "DP"
    temperature: float | None = None
    coefficient: float | None = None
    activation_energy: float | None = None


# Read at the source or in an abstract, but for the AIMD value, which is quoted as later papers quote it.
# Further values: --published FILE.
PUBLISHED = (
    Published("Mo, Ong, Ceder, Chem. Mater. 24, 15 (2012): AIMD", "AIMD", activation_energy=0.21),
    Published(
        "Kuhn, Duppel, Lotsch, Energy Environ. Sci. 6, 3548 (2013): NMR and impedance",
        "experiment",
        activation_energy=0.22,
    ),
    # Conductivity 12 mS/cm at room temperature (Kamaya et al., Nat. Mater. 10, 682 (2011)); 20 Li in 952 Å3,
    # Nernst-Einstein: D = s k T / (n e^2), a collective coefficient.
    Published("Kamaya et al. 2011, from 12 mS/cm", "experiment", temperature=300.0, coefficient=9.2e-8),
)


def unit_cell(cell: str = "pbe") -> Atoms:
    """Li20Ge2P4S24: the published structure with whole atoms.

    The two Li sites of partial occupation are filled so that no two Li are nearer than 2 Å: all eight 8f, the
    four 4d, and one of each close pair (1.7 Å) of 16h, in the choice of least Coulomb repulsion of these.
    """
    a, c = CELLS[cell]
    group = Spacegroup(137, 1)
    ge_p, p = (group.equivalent_sites([site])[0] for site in (GE_P, PHOSPHORUS))
    sulphur = np.concatenate([group.equivalent_sites([site])[0] for site in SULPHUR])
    lattice = np.array([a, a, c])
    lithium = _lithium(group, lattice)
    ge = ge_p[np.isclose(ge_p[:, 0], 0.5)]
    rest = ge_p[~np.isclose(ge_p[:, 0], 0.5)]
    scaled = np.concatenate([lithium, ge, rest, p, sulphur])
    return Atoms("Li20Ge2P4S24", scaled_positions=scaled, cell=lattice, pbc=True)


def _lithium(group: Spacegroup, lattice: np.ndarray) -> np.ndarray:
    """Scaled positions (20, 3)."""
    fixed = np.concatenate([group.equivalent_sites([LITHIUM[name]])[0] for name in ("4d", "8f")])
    split = group.equivalent_sites([LITHIUM["16h"]])[0]  # (16, 3)
    distances = _distances(split, split, lattice)
    np.fill_diagonal(distances, np.inf)
    pairs = sorted({tuple(sorted((i, int(distances[i].argmin())))) for i in range(len(split))})
    best, lowest = None, np.inf
    for choice in itertools.product((0, 1), repeat=len(pairs)):
        index = [pair[k] for pair, k in zip(pairs, choice)]
        mine = _distances(split[index], split[index], lattice)
        others = _distances(split[index], fixed, lattice)
        energy = np.sum(1 / mine[np.triu_indices(len(index), 1)] ** 4) + np.sum(1 / others**4)
        if energy < lowest - 1e-9:
            best, lowest = index, energy
    return np.concatenate([split[best], fixed])


def _distances(first: np.ndarray, second: np.ndarray, lattice: np.ndarray) -> np.ndarray:
    """Nearest-image distances (n, m) in an orthorhombic cell."""
    step = first[:, None] - second[None]
    return np.asarray(np.linalg.norm((step - np.round(step)) * lattice, axis=2))


def read_published(path: Path) -> tuple[Published, ...]:
    """Values from a CSV file with the columns source, kind, temperature, coefficient, activation_energy."""
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    numbers = ("temperature", "coefficient", "activation_energy")
    return tuple(
        Published(row["source"], row["kind"], **{n: float(row[n]) for n in numbers if row.get(n)})
        for row in rows
    )
