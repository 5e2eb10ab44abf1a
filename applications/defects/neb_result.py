"""What `nudged_elastic_band` returns: the path, its energies and barriers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.interpolate import CubicHermiteSpline

from dpa2calc.applications.shared.ensemble import WithModelErrors
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.structures.attached import Attached, attach


@dataclass(frozen=True, kw_only=True)
class NudgedElasticBand(WithModelErrors):
    """A band of images from one minimum to another.

    Fields: `energies` (n_images,) eV; `positions` (n_images, n, 3) Å, continuous along the path; `forces`
    (n_images, n, 3) eV/Å of the potential; `path` (n_images,) Å, length along the band; `slopes` (n_images,)
    eV/Å, dE/ds; `barrier_forward`, `barrier_backward`, `reaction_energy` eV; `barrier_error` eV: difference
    between the highest image and the highest point of the spline through energies and slopes (small when the
    climbing image sits on the saddle); `saddle` image index; `saddle_force` eV/Å, the largest true force
    there; `minima` inner images that lie in a dip of the path; `converged`, `fmax` asked and
    `residual_force` reached, eV/Å; `n_steps`; `climb`; `numbers`, `cell`, `pbc`, what
    is `attached` to the atoms;
    `exchanged`: cycles of equal atoms that change places although another order would make the path shorter.
    """

    formula: str
    energies: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    path: np.ndarray
    slopes: np.ndarray
    barrier_forward: float
    barrier_backward: float
    barrier_error: float
    reaction_energy: float
    saddle: int
    saddle_force: float
    minima: list[int]
    converged: bool
    fmax: float
    residual_force: float
    n_steps: int
    climb: bool
    numbers: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    exchanged: list[list[int]] = field(default_factory=list)
    attached: Attached = field(default_factory=dict, repr=False)

    def images(self) -> list[Atoms]:
        """The images with their energies and forces, ready for `ase.io.write`."""
        frames = []
        for positions, energy, forces in zip(self.positions, self.energies, self.forces):
            frame = Atoms(numbers=self.numbers, positions=positions, cell=self.cell, pbc=self.pbc)
            attach(frame, self.attached)
            frame.calc = SinglePointCalculator(frame, energy=float(energy), forces=forces)
            frames.append(frame)
        return frames

    def spline(self, n_points: int = 200) -> tuple[np.ndarray, np.ndarray]:
        """Path length (Å) and energy (eV) of the cubic spline through energies and slopes."""
        grid = np.linspace(0.0, self.path[-1], n_points)
        return grid, CubicHermiteSpline(self.path, self.energies, self.slopes)(grid)

    def summary(self) -> str:
        """Barriers with their error, and how well the band is converged."""
        state = "converged" if self.converged else "NOT CONVERGED"
        lines = [
            f"Nudged elastic band of {self.formula}: {len(self.energies)} images, path {self.path[-1]:.3f} Å",
            "  barrier forward   "
            + self.told("barrier_forward", self.barrier_forward, self.barrier_error, "eV", 4),
            f"  barrier backward  {self.told('barrier_backward', self.barrier_backward, None, 'eV', 4)}",
            f"  reaction energy   {self.told('reaction_energy', self.reaction_energy, None, 'eV', 4)}",
            f"  {state}: force {self.residual_force:.3g} eV/Å (asked {self.fmax:g}) after {self.n_steps} "
            f"steps; true force at the saddle {self.saddle_force:.3g} eV/Å",
        ]
        if self.saddle in (0, len(self.energies) - 1):
            lines.append("  the highest image is an end of the path: no saddle point between the minima")
        if self.exchanged:
            names = "; ".join(" and ".join(map(str, cycle)) for cycle in self.exchanged)
            lines.append(f"  equal atoms change places: {names}; another order would make the path shorter")
        if self.minima:
            lines.append(f"  the path dips at images {self.minima}: relax them and split the path there")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Energy along the path; returns the axes."""
        axes = axes_for(ax)
        grid, curve = self.spline()
        (line,) = axes.plot(grid, curve - self.energies[0])
        axes.plot(self.path, self.energies - self.energies[0], "o", color=line.get_color())
        axes.set(xlabel="path (Å)", ylabel="energy (eV)")
        axes.set_title(f"{self.formula}: barrier {self.barrier_forward:.3f} eV")
        return axes
