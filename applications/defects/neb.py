"""Minimum-energy path and barrier between two minima: nudged elastic band with a climbing image."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator
from ase.mep import NEB, idpp_interpolate
from ase.optimize import FIRE
from scipy.interpolate import CubicHermiteSpline

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import Evaluated, ensemble_of, evaluate
from dpa2calc.applications.shared.ensemble import spread
from dpa2calc.applications.shared.structures import checked_copy, fields_of, positive
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.progress import progress_bar

from .neb_ends import floats, matched, warn_of_constraints
from .neb_order import exchanged_atoms, warn_exchanged
from .neb_result import NudgedElasticBand
from .neb_store import band_identity, restore_band, save_band

Interpolation = Literal["idpp", "linear"]


@application
def nudged_elastic_band(
    initial: Atoms,
    final: Atoms,
    *,
    n_images: int = 7,
    interpolation: Interpolation = "idpp",
    relax_ends: bool = True,
    climb: bool = True,
    fmax: float = 0.02,
    spring: float = 1.0,
    max_steps: int = 1000,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> NudgedElasticBand:
    """Minimum-energy path from `initial` to `final` (Henkelman and Jonsson, J. Chem. Phys. 113, 9978, 2000).

    The band relaxes without climbing first, then its highest image climbs to the saddle point. The images
    of a molecule without a periodic direction may move and turn as wholes, unless a constraint or an external
    field of the calculator holds it.

    Args:
        initial: minimum with a calculator; its FixAtoms constraints hold for the whole path. Not changed.
        final: the other minimum: same atoms in the same order, same cell. Atoms may have been wrapped across
            the cell; the shorter way is taken. Equal atoms that change places although another order makes
            the path shorter bring a warning that names them; the order is not changed, as an exchange may be
            what is meant.
        n_images: images in all, ends included, at least 3.
        interpolation: first guess: "idpp" keeps atoms from running through one another (Smidstrup et al.,
            J. Chem. Phys. 140, 214106, 2014), "linear" is a straight line.
        relax_ends: relax both ends to half of fmax; False demands forces below fmax there.
        climb: let the highest image climb to the saddle point.
        fmax: largest force of the band at convergence, eV/Å.
        spring: spring constant, eV/Å².
        max_steps: steps of the optimiser in all.
        folder: the band is kept here (`band.npz`), and the work resumes from it; one folder for each path.
        progress: show a progress bar on stderr.

    Returns:
        The band; when it is not converged within max_steps, with a warning and `converged=False`.

    Warns:
        UserWarning: not converged, or equal atoms change places.

    Raises:
        StructureError: ends that do not belong together, are the same, or are not relaxed.
        ConfigError: bad numbers, or a folder that belongs to another path or calculator, or is in use.
    """
    start, calculator = checked_copy(initial, what="nudged_elastic_band", periodic=False)
    if n_images < 3:
        raise ConfigError(f"n_images must be 3 or more (got {n_images})")
    for name, value in (("fmax", fmax), ("spring", spring), ("max_steps", max_steps)):
        positive(name, value)
    warn_of_constraints(start, final)
    floating = floats(start, calculator)
    stop = matched(start, final, floating)
    exchanged = exchanged_atoms(start, stop)
    if exchanged:
        warn_exchanged(start, stop, exchanged, stacklevel=2)
    ends = _relaxed_ends(start, stop, calculator, relax_ends, fmax, folder)
    images = _first_guess(ends, n_images, interpolation)
    store = Path(folder) / "band.npz" if folder is not None else None
    belongs = band_identity(start, stop, calculator, n_images, interpolation, spring)
    stage = restore_band(images, store, belongs, climb) if store is not None else 0
    for image in images[1:-1]:
        image.calc = calculator
    save = partial(save_band, images, store=store, belongs=belongs)
    make = partial(_Band, images, spring, floating=floating)
    n_steps, residual, converged = _optimise(make, climb, stage, fmax, max_steps, save, progress)
    if not converged:
        warnings.warn(
            f"nudged_elastic_band is not converged: force {residual:.3g} eV/Å after {n_steps} steps, asked "
            f"{fmax:g}; call it again with a larger max_steps (and the same folder, to go on from here)",
            stacklevel=3,
        )
    path = _path(images, ends)
    return NudgedElasticBand(
        **path,
        model_errors=_model_errors(images, path["energies"], path["saddle"], calculator),
        formula=start.get_chemical_formula(),
        converged=converged,
        fmax=fmax,
        residual_force=residual,
        n_steps=n_steps,
        climb=climb,
        exchanged=exchanged,
        **fields_of(start, "numbers", "cell", "pbc"),
    )


def _relaxed_ends(
    start: Atoms, stop: Atoms, calculator: BaseCalculator, relax: bool, fmax: float,
    folder: str | os.PathLike[str] | None,
) -> list[Evaluated]:  # fmt: skip
    settings = Relaxation(fmax=fmax / 2.0) if relax else None
    ends = evaluate(
        [start, stop], calculator, what="ends of the path", relaxation=settings, folder=folder, progress=False
    )
    for name, end in zip(("initial", "final"), ends):
        free = _free(end.atoms, end.forces)
        if free > fmax:
            raise StructureError(
                f"the {name} state is not relaxed: force {free:.2g} eV/Å, allowed is fmax={fmax:g}; "
                "use relax_ends=True"
            )
    gap = np.linalg.norm(ends[1].atoms.positions - ends[0].atoms.positions, axis=1).max()
    if gap < 0.05:
        raise StructureError(
            "both ends relax into the same minimum (no atom differs by 0.05 Å): there is no barrier"
        )
    return ends


def _free(atoms: Atoms, forces: np.ndarray) -> float:
    """Largest force (eV/Å) on atoms that may move."""
    held = forces.copy()
    for constraint in atoms.constraints:
        constraint.adjust_forces(atoms, held)
    return float(np.linalg.norm(held, axis=1).max())


def _first_guess(ends: list[Evaluated], n_images: int, interpolation: Interpolation) -> list[Atoms]:
    first, last = ends[0].atoms, ends[1].atoms
    images = [first.copy() for _ in range(n_images - 1)] + [last.copy()]
    for image, end in zip((images[0], images[-1]), ends):  # the ends are known: never computed again
        image.calc = _Known(end)
    band = NEB(images, method="improvedtangent")
    # the ends are unwrapped already, so no minimum image is needed, except in IDPP's distances; a step of
    # half the cell has two, and `band.interpolate(method="idpp", mic=True)` may go towards the other one
    band.interpolate(apply_constraint=True)
    if interpolation == "idpp":
        idpp_interpolate(band, traj=None, log=None, mic=bool(first.pbc.any()))
    return images


class _Known(Calculator):
    """Hands out the energy and forces of an end: a molecule may turn, its energy stays."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, end: Evaluated) -> None:
        super().__init__()
        self._end = end

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = (), system_changes: Sequence[str] = ()
    ) -> None:
        self.results = {"energy": self._end.energy, "forces": self._end.forces}


class _Band(NEB):
    """ASE's band that computes each set of positions once: its optimisers ask two or three times a step."""

    def __init__(self, images: list[Atoms], spring: float, *, climb: bool, floating: bool) -> None:
        super().__init__(
            images, k=spring, climb=climb, method="improvedtangent", allow_shared_calculator=True,
            remove_rotation_and_translation=floating,
        )  # fmt: skip
        self._known: tuple[np.ndarray, np.ndarray] | None = None

    def get_forces(self) -> np.ndarray:
        """Forces of the band ((n_images - 2) * n, 3), eV/Å."""
        positions = self.get_positions()
        if self._known is None or not np.array_equal(self._known[0], positions):
            forces = super().get_forces()
            # removing rotation moves the images, so remember where they are now
            self._known = (self.get_positions(), forces.copy())
        return self._known[1].copy()


def _optimise(
    make: Callable[..., _Band], climb: bool, stage: int, fmax: float, max_steps: int,
    save: Callable[[int], None], progress: bool,
) -> tuple[int, float, bool]:  # fmt: skip
    """Relax the band, then let it climb; returns steps, residual force, converged."""
    stages = [(0, max(0.1, 4.0 * fmax)), (1, fmax)] if climb else [(0, fmax)]
    done, residual, converged = 0, np.inf, False
    with progress_bar(total=max_steps, desc="elastic band", unit="step", shown=progress) as bar:
        for current, limit in stages:
            if current < stage:
                continue
            band = make(climb=current == 1)
            optimizer = FIRE(band, logfile=None)
            for reached in optimizer.irun(fmax=limit, steps=max_steps - done):
                converged = bool(reached)
                residual = float(np.linalg.norm(band.get_forces(), axis=1).max())
                bar.set_postfix(
                    fmax=f"{residual:.3f}", barrier=f"{band.emax - band.images[0].get_potential_energy():.3f}"
                )
                bar.update(optimizer.nsteps + done - bar.n)
                if optimizer.nsteps % 10 == 0:
                    save(current)
            done += optimizer.nsteps
            save(current)
            if not converged:
                break
    return done, residual, converged


def _model_errors(
    images: list[Atoms], energies: np.ndarray, saddle: int, calculator: BaseCalculator
) -> dict[str, float]:
    """Spread of the barriers over the ensemble, the path being that of the model."""
    points = {}
    for place in dict.fromkeys((0, saddle, len(images) - 1)):
        made, none = ensemble_of(images[place], calculator), np.empty(0)
        points[place] = Evaluated(
            energy=float(energies[place]), forces=none, stress=none, atoms=images[place],
            ensemble=None if made is None else {"energy": made["energy"]},
        )  # fmt: skip

    def barriers(of: Sequence[Evaluated]) -> dict[str, float]:
        known = {place: point.energy for place, point in zip(points, of)}
        first, top, last = (known[place] for place in (0, saddle, len(images) - 1))
        return {
            "barrier_forward": top - first,
            "barrier_backward": top - last,
            "reaction_energy": last - first,
        }

    return spread(barriers, list(points.values()))


def _path(images: list[Atoms], ends: list[Evaluated]) -> dict[str, Any]:
    """Fields of NudgedElasticBand along the path."""
    inner = images[1:-1]
    energies = np.array([ends[0].energy, *(i.get_potential_energy() for i in inner), ends[1].energy])
    inner_forces = [image.get_forces(apply_constraint=False) for image in inner]
    forces = np.array([ends[0].forces, *inner_forces, ends[1].forces])
    positions = np.array([image.positions for image in images])
    steps = np.linalg.norm(np.diff(positions, axis=0).reshape(len(images) - 1, -1), axis=1)
    path = np.concatenate([[0.0], np.cumsum(steps)])
    tangents = np.gradient(positions, path, axis=0)  # (n_images, n, 3), nearly of unit length
    tangents /= np.linalg.norm(tangents.reshape(len(images), -1), axis=1)[:, None, None]
    slopes = -np.einsum("inx,inx->i", forces, tangents)
    saddle = int(energies.argmax())
    top = float(CubicHermiteSpline(path, energies, slopes)(np.linspace(0.0, path[-1], 2001)).max())
    below = energies[1:-1] < np.minimum(energies[:-2], energies[2:]) - 1e-3
    return {
        "energies": energies,
        "positions": positions,
        "forces": forces,
        "path": path,
        "slopes": slopes,
        "barrier_forward": float(energies[saddle] - energies[0]),
        "barrier_backward": float(energies[saddle] - energies[-1]),
        "barrier_error": abs(top - float(energies[saddle])),
        "reaction_energy": float(energies[-1] - energies[0]),
        "saddle": saddle,
        "saddle_force": _free(images[saddle], forces[saddle]),
        "minima": (1 + np.flatnonzero(below)).tolist(),
    }
