"""Structures and input for tests with LAMMPS, and what LAMMPS made of them."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

TYPES = ("O", "H", "Cu")


def jittered(counts: tuple[int, int, int], *, seed: int, tilt: float = 0.0, pbc: Any = True) -> Atoms:
    """O, H and Cu near a grid of 2.3 Å, in LAMMPS's form of a cell."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*(np.arange(c) for c in counts), indexing="ij"), -1).reshape(-1, 3)
    cell = np.diag(2.3 * np.array(counts, dtype=float))
    cell[1, 0], cell[2, 0], cell[2, 1] = tilt, -0.7 * tilt, 0.5 * tilt
    scaled = (sites + 0.5) / np.array(counts)
    atoms = Atoms(rng.choice(TYPES, len(sites)), scaled_positions=scaled, cell=cell, pbc=pbc)
    atoms.symbols[:3] = TYPES
    atoms.positions += rng.normal(0.0, 0.12, (len(atoms), 3))
    return atoms


def setup(atoms: Atoms, path: Any, units: str = "metal") -> list[str]:
    """Commands that make the box and its atoms, through a data file."""
    write(path, atoms, format="lammps-data", specorder=TYPES, masses=True, units=units)
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    return [
        f"units {units}",
        f"boundary {boundary}",
        "box tilt large",
        f"read_data {path}",
        "compute each all pe/atom",
        "compute sum all reduce sum c_each",
        "compute tensor all pressure NULL virial",
        "thermo_style custom step pe etotal press c_sum c_tensor[1] c_tensor[2] c_tensor[3] "
        "c_tensor[4] c_tensor[5] c_tensor[6]",
        "thermo_modify format float %.14g",
        "fix move all nve",
    ]


def found(lmp: Any) -> dict[str, np.ndarray]:
    """Energy, forces, energies, virial pressure (xx yy zz xy xz yz), positions and cell, by ID."""
    from dpa2calc.integrations.lammps.state import read_box

    energies = lmp.gather("c_each", 1, 1)
    box = read_box(lmp)
    tensor = lmp.numpy.extract_compute("tensor", 0, 1)
    return {
        "energy": np.array(lmp.get_thermo("pe")),
        "total": np.array(lmp.get_thermo("etotal")),
        "forces": np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3),
        "energies": np.array(energies),
        "tensor": np.array(tensor),
        "positions": np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3) - box.low,
        "cell": box.cell,
    }
