"""Mathematics of the elastic tensor: Voigt matrices, symmetry, stability, averages, sound waves.

Voigt order everywhere: xx, yy, zz, yz, xz, xy (ASE's), shear strains being engineering strains (2 e_yz).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms, units

if TYPE_CHECKING:
    from spglib import SpglibDataset

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_INDEX = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # (i, j) -> Voigt index


def full_tensor(voigt: np.ndarray) -> np.ndarray:
    """C_ijkl (3, 3, 3, 3) of a symmetric Voigt matrix (6, 6)."""
    return voigt[_INDEX[:, :, None, None], _INDEX[None, None, :, :]]


def voigt_matrix(tensor: np.ndarray) -> np.ndarray:
    """Voigt matrix (6, 6) of C_ijkl (3, 3, 3, 3)."""
    rows, columns = np.array(VOIGT).T
    return tensor[rows[:, None], columns[:, None], rows[None, :], columns[None, :]]


def rotate(voigt: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Voigt matrix after turning the crystal by a rotation (3, 3): C'_ijkl = R_ia R_jb R_kc R_ld C_abcd."""
    r = rotation
    return voigt_matrix(np.einsum("ia,jb,kc,ld,abcd->ijkl", r, r, r, r, full_tensor(voigt), optimize=True))


def symmetrised(voigt: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Average of a symmetric Voigt matrix over Cartesian point operations (n, 3, 3)."""
    return np.mean([rotate(voigt, rotation) for rotation in rotations], axis=0)


@dataclass(frozen=True)
class CrystalSymmetry:
    """What the space group of a crystal says of its tensor.

    `rotations` (n, 3, 3) Cartesian point operations in the given frame; `to_standard` (3, 3) turns that into
    the standard orientation, where the components `pairs` are independent; `system` of the crystal.
    """

    rotations: np.ndarray
    to_standard: np.ndarray
    pairs: tuple[tuple[int, int], ...]
    system: str

    @classmethod
    def of(cls, atoms: Atoms, data: SpglibDataset) -> CrystalSymmetry:
        """From spglib's dataset of the crystal."""
        columns = atoms.cell.array.T  # lattice vectors as columns
        rotations = np.array([columns @ w @ np.linalg.inv(columns) for w in data.rotations])
        pairs = independent_components(data.number, data.pointgroup)
        return cls(rotations, np.asarray(data.std_rotation_matrix), pairs, crystal_system_of(data.number))

    def symmetrised(self, raw: np.ndarray) -> np.ndarray:
        """The tensor (6, 6) of a raw one, which need not be symmetric."""
        return symmetrised((raw + raw.T) / 2.0, self.rotations)

    def constants(self, tensor: np.ndarray) -> dict[str, float]:
        """The independent components of a tensor (6, 6), "C11" and so on."""
        standard = rotate(tensor, self.to_standard)
        return {f"C{i}{j}": float(standard[i - 1, j - 1]) for i, j in self.pairs}

    def numbers(self, raw: np.ndarray) -> dict[str, float]:
        """The independent components of a raw tensor and its `averages`."""
        tensor = self.symmetrised(raw)
        return self.constants(tensor) | averages(tensor)


def stability_eigenvalues(voigt: np.ndarray) -> np.ndarray:
    """Eigenvalues (6,) of C in the orthonormal (Mandel) basis: all above zero means elastically stable.

    This is the necessary and sufficient Born condition for any symmetry
    (Mouhat and Coudert, Phys. Rev. B 90, 224104, 2014).
    """
    scale = np.array([1.0, 1.0, 1.0, np.sqrt(2), np.sqrt(2), np.sqrt(2)])
    return np.linalg.eigvalsh(voigt * np.outer(scale, scale))


def averages(voigt: np.ndarray) -> dict[str, float]:
    """Polycrystal moduli in the unit of C: Voigt, Reuss and Hill K and G; Young's E and Poisson's nu (Hill).

    Also `anisotropy`, the universal index 5 G_V/G_R + K_V/K_R - 6 (Ranganathan and Ostoja-Starzewski,
    Phys. Rev. Lett. 101, 055504, 2008), zero for an isotropic body. Reuss values and what follows from
    them are NaN for an unstable crystal, whose compliance has no meaning.
    """
    c = voigt
    normal, cross, shear = np.trace(c[:3, :3]), c[0, 1] + c[0, 2] + c[1, 2], np.trace(c[3:, 3:])
    k_voigt = (normal + 2.0 * cross) / 9.0
    g_voigt = (normal - cross + 3.0 * shear) / 15.0
    k_reuss = g_reuss = np.nan
    if stability_eigenvalues(voigt).min() > 0:
        s = np.linalg.inv(voigt)
        normal, cross, shear = np.trace(s[:3, :3]), s[0, 1] + s[0, 2] + s[1, 2], np.trace(s[3:, 3:])
        k_reuss = 1.0 / (normal + 2.0 * cross)
        g_reuss = 15.0 / (4.0 * normal - 4.0 * cross + 3.0 * shear)
    k, g = (k_voigt + k_reuss) / 2.0, (g_voigt + g_reuss) / 2.0
    return {
        "bulk_voigt": float(k_voigt),
        "bulk_reuss": float(k_reuss),
        "bulk_hill": float(k),
        "shear_voigt": float(g_voigt),
        "shear_reuss": float(g_reuss),
        "shear_hill": float(g),
        "young_hill": float(9.0 * k * g / (3.0 * k + g)),
        "poisson_hill": float((3.0 * k - 2.0 * g) / (2.0 * (3.0 * k + g))),
        "anisotropy": float(5.0 * g_voigt / g_reuss + k_voigt / k_reuss - 6.0),
    }


def sound_velocities(
    voigt: np.ndarray, density: float, direction: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Speeds (3,) in m/s, slowest first, and polarisations (3, 3) as rows, of plane waves along a direction.

    Christoffel: rho v^2 u_i = C_ijkl n_j n_l u_k. C in GPa, density in kg/m³, direction Cartesian. A negative
    speed stands for an imaginary one (elastic instability).
    """
    n = np.asarray(direction, dtype=float)
    n = n / np.linalg.norm(n)
    christoffel = np.einsum("ijkl,j,l->ik", full_tensor(voigt), n, n)
    values, vectors = np.linalg.eigh(christoffel)
    return np.sign(values) * np.sqrt(np.abs(values) * 1e9 / density), vectors.T


def debye_temperature(bulk: float, shear: float, density: float, atoms_per_volume: float) -> float:
    """Debye temperature (K) from isotropic moduli (GPa), density (kg/m³) and number density (1/Å³).

    theta = h/k (3 n / 4 pi)^(1/3) v_m with v_m the mean of one longitudinal and two transverse waves
    (Anderson, J. Phys. Chem. Solids 24, 909, 1963).
    """
    if not (bulk > 0 and shear > 0):
        return float("nan")
    v_long = np.sqrt((bulk + 4.0 * shear / 3.0) * 1e9 / density)
    v_trans = np.sqrt(shear * 1e9 / density)
    mean = ((2.0 / v_trans**3 + 1.0 / v_long**3) / 3.0) ** (-1.0 / 3.0)  # m/s
    wavevector = (3.0 * atoms_per_volume * 1e30 / (4.0 * np.pi)) ** (1.0 / 3.0)  # 1/m
    return float(units._hplanck / units._k * wavevector * mean)


def independent_components(space_group: int, point_group: str) -> tuple[tuple[int, int], ...]:
    """Voigt index pairs (1-based) that a space group leaves independent, in the standard orientation.

    Standard orientation: spglib's (a along x and c along z for hexagonal, trigonal, tetragonal; b unique for
    monoclinic).
    """
    pairs = _INDEPENDENT[crystal_system_of(space_group)] + _IN_LOW_GROUPS.get(point_group, ())
    return tuple((1, 5) if pair == (1, 4) and space_group in _AXES_ALONG_Y else pair for pair in pairs)


_ORTHORHOMBIC = ((1, 1), (2, 2), (3, 3), (1, 2), (1, 3), (2, 3), (4, 4), (5, 5), (6, 6))
_INDEPENDENT: dict[str, tuple[tuple[int, int], ...]] = {
    "cubic": ((1, 1), (1, 2), (4, 4)),
    "hexagonal": ((1, 1), (1, 2), (1, 3), (3, 3), (4, 4)),
    "tetragonal": ((1, 1), (1, 2), (1, 3), (3, 3), (4, 4), (6, 6)),
    "trigonal": ((1, 1), (1, 2), (1, 3), (1, 4), (3, 3), (4, 4)),
    "orthorhombic": _ORTHORHOMBIC,
    "monoclinic": (*_ORTHORHOMBIC, (1, 5), (2, 5), (3, 5), (4, 6)),
    "triclinic": tuple((i, j) for i in range(1, 7) for j in range(i, 7)),
}
_IN_LOW_GROUPS = {
    **dict.fromkeys(("4", "-4", "4/m"), ((1, 6),)), **dict.fromkeys(("3", "-3"), ((1, 5),))
}  # fmt: skip
# trigonal groups whose twofold axes (or normals of mirrors) are at right angles to a, as P312: C15, not C14
_AXES_ALONG_Y = (149, 151, 153, 157, 159, 162, 163)
_LAST_GROUPS = {
    2: "triclinic", 15: "monoclinic", 74: "orthorhombic", 142: "tetragonal", 167: "trigonal",
    194: "hexagonal", 230: "cubic",
}  # fmt: skip


def crystal_system_of(space_group: int) -> str:
    """Crystal system of an international space-group number (1 to 230)."""
    return next(name for last, name in _LAST_GROUPS.items() if space_group <= last)


def propagated(
    function: Callable[[np.ndarray], np.ndarray], tensor: np.ndarray, errors: np.ndarray
) -> np.ndarray:
    """Errors of a function of the tensor, to first order, from independent ones of its upper triangle."""
    base = function(tensor)
    total = np.zeros_like(base)
    for i, j in zip(*np.triu_indices(6)):
        shifted = tensor.copy()
        shifted[i, j] = shifted[j, i] = tensor[i, j] + errors[i, j]
        total += (function(shifted) - base) ** 2
    return np.sqrt(total)
