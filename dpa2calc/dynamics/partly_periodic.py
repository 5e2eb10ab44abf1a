"""Constant pressure of slabs and wires: Martyna-Tobias-Klein dynamics of chosen strains."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.md.nose_hoover_chain import MaskedMTKNPT


class PeriodicMTKNPT(MaskedMTKNPT):
    """ASE's MTK integrator with one cell momentum for each strain of a basis.

    The cell momentum is p_g = sum of p_k B_k with orthonormal symmetric B_k (n, 3, 3), so that its kinetic
    energy is sum of p_k²/2W with n degrees of freedom. Each p_k is driven by B_k : (V stress + kinetic term);
    with the B_k inside the periodic directions the volume of the vacuum drops out at zero pressure.
    """

    def __init__(self, atoms: Atoms, *args: object, basis: np.ndarray, **options: object) -> None:
        self._basis = basis
        # ASE counts the cell's degrees of freedom by its mask
        mask = (True,) * len(basis)
        super().__init__(atoms, *args, mask=mask, **options)  # type: ignore[arg-type]

    def _init_cell_momenta(self) -> None:
        self._p_c = np.zeros(len(self._basis))

    @property
    def _p_g(self) -> np.ndarray:
        return np.einsum("k,kij->ij", self._p_c, self._basis)

    @_p_g.setter
    def _p_g(self, value: np.ndarray) -> None:
        raise AttributeError("cell momenta are set through _p_c")

    def _integrate_p_cell(self, delta: float) -> None:
        kinetic = np.sum(self._p**2 / self.masses) / (3 * self._num_atoms_global)
        drive = self._get_volume() * (self._get_stress() - self._pressure_au * np.eye(3))
        self._p_c = self._p_c + delta * np.einsum("kij,ij->k", self._basis, drive + kinetic * np.eye(3))
