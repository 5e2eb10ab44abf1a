"""Checks after each step that end a run before it fills a disk with nonsense."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.structures.distances import near_others, pair_vectors
from dpa2calc.structures.given import as_energy, require_calculator

from .config import MDConfig

Pairs: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Two atoms and their distance, (n_pairs,) each."""
_NEAR = 3.0  # Å; nearly every atom of anything has a neighbour there


class Guard:
    """Limits of one run; each check returns None or one sentence that says what went wrong."""

    def __init__(self, config: MDConfig, n_dof: int, first_volume: float) -> None:
        self.config = config
        self.n_dof = n_dof
        self.first_volume = first_volume
        limit = config.temperature_limit
        if limit is None:
            # few atoms fluctuate widely: the standard deviation of T is T sqrt(2 / n_dof)
            limit = 10 * config.highest_temperature() * (1 + 5 * np.sqrt(2 / n_dof))
        self.temperature_limit = float(limit)
        self._had_neighbour: np.ndarray | None = None

    def check_step(self, atoms: Atoms, before: np.ndarray, cell_before: np.ndarray) -> str | None:
        """Cheap checks for every step.

        Args:
            atoms: after the step, with results.
            before: positions before it, (n_atoms, 3) Å.
            cell_before: cell before it, (3, 3) Å.
        """
        config = self.config
        energy, forces = results_at_hand(atoms)
        for name, values in (("position", atoms.positions), ("force", forces)):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                first = _name(atoms, bad[0])
                return f"{len(bad)} of {len(atoms)} atoms have a NaN or infinite {name}, first {first}"
        if not np.isfinite(energy):
            return f"the potential energy is {energy} eV"
        temperature = 2 * atoms.get_kinetic_energy() / (self.n_dof * units.kB)
        if not temperature <= self.temperature_limit:
            limit = self.temperature_limit
            return f"the temperature is {temperature:.6g} K, over temperature_limit={limit:.6g} K"
        reason = _over(
            "the force on {} is {:.4g} eV/Å", _norms(forces), config.force_limit, "force_limit", atoms
        )
        if config.ensemble == "npt":  # an atom that goes with the cell has not moved
            before = before @ np.linalg.solve(cell_before, atoms.cell.array)
        moved = _norms(atoms.positions - before)
        reason = reason or _over(
            "{} moved {:.3g} Å in one step", moved, config.step_limit, "step_limit", atoms
        )
        reason = reason or self._check_volume(atoms) or self._check_committee(atoms)
        return reason or over_uncertainty(atoms, config.uncertainty_limit)

    def check_distances(self, atoms: Atoms) -> str | None:
        """Checks that need neighbours: overlapping and lost atoms."""
        shortest, longest = self.config.min_distance, self.config.lost_distance
        if len(atoms) < 2 or (shortest is None and longest is None):
            return None
        try:
            near = _pairs(atoms, max(shortest or 0.0, min(_NEAR, longest or 0.0)))  # one search for both
            return _overlap(atoms, near, shortest) or self._check_lost(atoms, near, longest)
        except StructureError as error:  # atoms crowded into one place, a cell that collapsed
            return str(error)

    def _check_lost(self, atoms: Atoms, near: Pairs, limit: float | None) -> str | None:
        if limit is None:
            return None
        has_neighbour = _has_neighbour(atoms, near, limit)
        if self._had_neighbour is None:  # an atom that was alone from the start is not lost
            self._had_neighbour = has_neighbour
        lost = np.flatnonzero(self._had_neighbour & ~has_neighbour)
        if len(lost):
            return (
                f"{len(lost)} atom(s) lost, first {_name(atoms, lost[0])}: no neighbour within "
                f"lost_distance={limit} Å"
            )
        return None

    def _check_volume(self, atoms: Atoms) -> str | None:
        limit = self.config.volume_limit
        if self.config.ensemble != "npt" or limit is None:
            return None
        ratio = atoms.get_volume() / self.first_volume
        if not 1 / limit <= ratio <= limit:
            return f"the volume is {ratio:.3g} times the first one, beyond volume_limit={limit}"
        return None

    def _check_committee(self, atoms: Atoms) -> str | None:
        limit = self.config.committee_limit
        if limit is None:
            return None
        deviation = committee_deviation(atoms.calc)
        if deviation is None:
            return "committee_limit is set, but the calculator gives no 'forces_std'; use a committee"
        return _over(
            "the committee's forces on {} deviate by {:.3g} eV/Å", deviation, limit, "committee_limit", atoms
        )


def over_uncertainty(atoms: Atoms, limit: float | None) -> str | None:
    """What is wrong where a model is less sure of an atom's energy than `limit` (eV), or None."""
    if limit is None:
        return None
    deviation = atoms.calc.results.get("energies_std")
    if deviation is None:
        return (
            "uncertainty_limit is set, but the calculator gives no 'energies_std'; use a single model whose "
            "uncertainty was measured (`dpa2calc uncertainty`), or committee_limit with a committee"
        )
    text = "the energy of {} is known to {:.3g} eV"
    return _over(text, np.asarray(deviation), limit, "uncertainty_limit", atoms)


def check_atoms(atoms: Atoms, config: MDConfig) -> None:
    """Raise where there is nothing that these dynamics could move."""
    if len(atoms) == 0:
        raise StructureError("there are no atoms to move")
    require_calculator(atoms, "molecular dynamics")
    check_stress(atoms.calc, config.ensemble)
    if not (atoms.get_masses() > 0).all():
        raise StructureError("an atom has no mass; give every atom a mass above 0")


def check_stress(calculator: Calculator, ensemble: str) -> None:
    """Raise a ConfigError for NPT with a calculator without stresses."""
    if ensemble == "npt" and "stress" not in calculator.implemented_properties:
        raise ConfigError(f"NPT needs stresses, which {type(calculator).__name__} does not give; use NVT")


def results_at_hand(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (n_atoms, 3) of the last evaluation, the energy with that of constraints.

    A step ends with an evaluation of its new positions, so the results are read without ASE's
    comparison of all atoms with the last call, which costs more than a small model's whole step.
    """
    results = atoms.calc.results
    if "energy" in results and "forces" in results:
        added = (getattr(item, "adjust_potential_energy", None) for item in atoms.constraints)
        return as_energy(results["energy"]) + sum(one(atoms) for one in added if one), results["forces"]
    return as_energy(atoms.get_potential_energy()), atoms.get_forces(apply_constraint=False)


def committee_deviation(calculator: Calculator) -> np.ndarray | None:
    """Standard deviation of the force on each atom over a committee, (n_atoms,) eV/Å, or None."""
    values = calculator.results.get("forces_std")
    if values is None:
        return None
    values = np.asarray(values)
    return values if values.ndim == 1 else _norms(values)  # (n_atoms, 3) -> (n_atoms,)


def _overlap(atoms: Atoms, near: Pairs, limit: float | None) -> str | None:
    first, second, distances = near
    if limit is None or not len(distances) or distances.min() > limit:
        return None
    k = int(np.argmin(distances))
    pair = f"{_name(atoms, first[k])} and {_name(atoms, second[k])}"
    return f"{pair} are {distances[k]:.3g} Å apart, under min_distance={limit} Å"


def _has_neighbour(atoms: Atoms, near: Pairs, distance: float) -> np.ndarray:
    """Whether each atom has a neighbour within `distance`; nearly always the pairs at hand answer it."""
    found = np.zeros(len(atoms), dtype=bool)
    for cutoff in (_NEAR, 5.0):
        first, second, distances = near if cutoff == _NEAR else _pairs(atoms, min(cutoff, distance))
        within = distances <= distance
        found[first[within]] = found[second[within]] = True
        if found.all() or cutoff >= distance:
            return found
    alone = np.flatnonzero(~found)  # few: all pairs within a longer distance would fill the memory
    found[alone] = near_others(atoms.positions, atoms.cell.array, atoms.pbc, distance, alone)
    return found


def _pairs(atoms: Atoms, cutoff: float) -> Pairs:
    i, j, vectors = pair_vectors(atoms.positions, atoms.cell.array, atoms.pbc, cutoff, full=False)
    return i, j, _norms(vectors)


def _norms(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(axis=1))  # (n_atoms, 3) -> (n_atoms,)


def _name(atoms: Atoms, index: int) -> str:
    return f"atom {int(index)} ({atoms.symbols[int(index)]})"


def _over(text: str, values: np.ndarray, limit: float | None, name: str, atoms: Atoms) -> str | None:
    worst = int(np.argmax(values))
    if limit is None or values[worst] <= limit:
        return None
    return f"{text.format(_name(atoms, worst), float(values[worst]))}, over {name}={limit}"
