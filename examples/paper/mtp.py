"""Moment tensor potentials of one element (Shapeev, Multiscale Model. Simul. 14, 1153 (2016)).

The energy of an atom is c_0 + sum_k c_k B_k. Its basic moments, sums over neighbours within the cutoff of
f_m(r) x^a y^b z^c / r^(a+b+c) with f_m an expansion in Chebyshev polynomials times (r - cutoff)^2, are
multiplied with each other as a list in the file says; some of the products are the invariants B_k.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from torch import Tensor

NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")


def read_mtp(path: Path) -> dict[str, Any]:
    """The numbers of a fitted `.mtp` file, by name; lists in braces as arrays."""
    text = path.read_text(encoding="utf-8")
    values: dict[str, Any] = {}
    for name, value in re.findall(r"^\s*(\w+) = (.+)$", text, flags=re.MULTILINE):
        numbers = [float(x) for x in NUMBER.findall(value)]
        values[name] = np.array(numbers) if "{" in value else numbers[0] if numbers else value.strip()
    rows = re.findall(r"^\s+\{([^{}]+)\}\s*$", text, flags=re.MULTILINE)
    values["radial_coeffs"] = np.array([[float(x) for x in row.split(",")] for row in rows])
    if values["species_count"] != 1 or values["radial_basis_type"] != "RBChebyshev":
        raise ValueError(f"{path} is not a moment tensor potential of one element with RBChebyshev")
    return values


class MTP(Calculator):
    """Energy (eV) and forces (eV/Å) of one element's moment tensor potential, in float64."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, path: Path) -> None:
        super().__init__()
        v = read_mtp(path)
        self.low, self.cutoff, self.scaling = v["min_dist"], v["max_dist"], v["scaling"]
        self.radial = torch.tensor(v["radial_coeffs"])  # (n_functions, n_polynomials)
        self.basic = torch.tensor(v["alpha_index_basic"].reshape(-1, 4).astype(int))
        self.steps = by_level(v["alpha_index_times"].reshape(-1, 4).astype(int), len(self.basic))
        self.n_moments = int(v["alpha_moments_count"])
        self.scalars = torch.tensor(v["alpha_moment_mapping"].astype(int))
        self.shift, self.weights = float(v["species_coeffs"][0]), torch.tensor(v["moment_coeffs"])

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and its gradient by way of the pair vectors."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        first, second, vectors = neighbor_list("ijD", self.atoms, self.cutoff)
        i, j = torch.from_numpy(first), torch.from_numpy(second)
        d = torch.tensor(vectors, dtype=torch.float64, requires_grad=True)  # (n_pairs, 3)
        energies = self.energies(d, i, len(self.atoms))
        (gradient,) = torch.autograd.grad(energies.sum(), d)
        forces = torch.zeros(len(self.atoms), 3, dtype=torch.float64)
        forces = forces.index_add(0, i, gradient).index_add(0, j, -gradient)
        self.results = {"energy": float(energies.detach().sum()), "forces": forces.numpy()}

    def energies(self, d: Tensor, i: Tensor, n_atoms: int) -> Tensor:
        """(n_atoms,) energies from pair vectors (n_pairs, 3) of atoms i."""
        r = d.norm(dim=1)
        x = (2 * r - (self.low + self.cutoff)) / (self.cutoff - self.low)
        polynomials = [torch.ones_like(x), x]
        while len(polynomials) < self.radial.shape[1]:
            polynomials.append(2 * x * polynomials[-1] - polynomials[-2])
        smooth = self.scaling * (r - self.cutoff) ** 2
        f = torch.stack(polynomials, dim=1) @ self.radial.T * smooth[:, None]  # (n_pairs, n_functions)
        powers = (d / r[:, None])[:, :, None] ** torch.arange(int(self.basic[:, 1:].max()) + 1)  # (n, 3, p)
        m, a, b, c = self.basic.T
        terms = f[:, m] * powers[:, 0, a] * powers[:, 1, b] * powers[:, 2, c]
        moments = torch.zeros(n_atoms, self.n_moments, dtype=torch.float64)
        moments[:, : len(self.basic)] = torch.zeros(n_atoms, len(self.basic), dtype=torch.float64).index_add(
            0, i, terms
        )
        for left, right, factor, target in self.steps:
            moments = moments.index_add(1, target, moments[:, left] * moments[:, right] * factor)
        return self.shift + moments[:, self.scalars] @ self.weights


def by_level(times: np.ndarray, n_basic: int) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The products (left, right, factor, target) in groups whose factors are complete before them."""
    level = dict.fromkeys(range(n_basic), 0)
    for left, right, _, target in times.tolist():
        level[target] = max(level.get(target, 0), 1 + max(level[left], level[right]))
    groups: dict[int, list[list[int]]] = {}
    for row in times.tolist():
        groups.setdefault(level[row[3]], []).append(row)
    out = []
    for _, rows in sorted(groups.items()):
        left, right, factor, target = torch.tensor(rows).T
        out.append((left, right, factor.double(), target))
    return out
