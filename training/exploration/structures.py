"""Where exploration starts: structures, their perturbed copies, and the trajectories of a round."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from ase import Atoms

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.identity import read_digest
from dpa2calc.structures.attached import bare
from dpa2calc.structures.lattice import is_crystal
from dpa2calc.training.data.dataset import Dataset, as_list, iread_given
from dpa2calc.training.data.readers import PathLike, iread_atoms
from dpa2calc.training.data.sets import by_number

from .close_contacts import close_contact
from .options import LoopOptions, MDCondition
from .sampling import Trajectory, too_close

logger = logging.getLogger(__name__)

StartFrames: TypeAlias = Dataset | Sequence[Atoms | PathLike] | Atoms | PathLike


def start_structures(frames: StartFrames) -> list[Atoms]:
    """Bare structures from a dataset, or from Atoms and files; a DataError where there is none."""
    given: list[object] = [f.atoms() for f in frames] if isinstance(frames, Dataset) else as_list(frames)
    # their labels are not used, so that it does not matter whether electrons had converged
    found = iread_given(given, "the start frames", lambda path: enumerate(iread_atoms(path)))
    start = [bare(atoms) for atoms, _ in found]
    if not start or any(len(a) == 0 for a in start):
        raise DataError("there are no start frames, or one has no atoms; give at least one structure")
    return start


def condition_structures(condition: MDCondition, start: list[Atoms]) -> list[Atoms]:
    """Where the trajectories of a condition start; a ConfigError for NPT without a periodic cell."""
    found = [a for path in condition.structures for a in start_structures(path)] or start
    if condition.ensemble == "npt":
        open_ones = [a for a in found if not is_crystal(a)]
        if open_ones:
            raise ConfigError(
                f"md.ensemble = 'npt' needs cells periodic in three directions, but {open_ones[0].symbols} "
                f"has pbc {open_ones[0].pbc.tolist()}; use nvt, or name other structures"
            )
    return found


def fit_to_start(pools: Sequence[list[Atoms]]) -> list[list[Atoms]]:
    """Of each condition the structures in which no atoms overlap; no dynamics can start from the others.

    Raises:
        DataError: an atom has no mass, or a condition has no structure left.
    """
    found: dict[int, str] = {}
    for atoms in (a for pool in pools for a in pool if id(a) not in found):
        if not (atoms.get_masses() > 0).all():
            raise DataError(f"an atom of {atoms.symbols} has no mass; give every atom a mass above 0")
        if reason := found.setdefault(id(atoms), too_close(atoms)):
            logger.warning("no dynamics start from a structure (%s): %s", atoms.symbols, reason)
    for pool in pools:
        if all(found[id(a)] for a in pool):
            raise DataError(
                f"in all {len(pool)} structures that dynamics may start from atoms overlap, such as in "
                f"{pool[0].symbols}: {found[id(pool[0])]}"
            )
    return [[a for a in pool if not found[id(a)]] for pool in pools]


def elements_of(structures: Iterable[Atoms]) -> tuple[str, ...]:
    """Chemical symbols, by atomic number."""
    return by_number({s for a in structures for s in a.symbols})


def all_elements(start: list[Atoms], conditions: Iterable[MDCondition]) -> tuple[str, ...]:
    """Elements of the start frames and of the structures that the conditions name."""
    return elements_of([*start, *(a for c in conditions for a in condition_structures(c, start))])


def perturbed(structures: list[Atoms], config: LoopOptions) -> list[Atoms]:
    """Each structure, followed by its copies with random displacements and, in a full cell, strains.

    After them come `config.contacts` copies in which two atoms are close.
    """
    rng = np.random.default_rng(config.seed)
    out = []
    for atoms in structures:
        out.append(atoms)
        for _ in range(config.perturbed):
            copied = atoms.copy()
            if is_crystal(copied):
                strain = rng.normal(0.0, config.strain, (3, 3))
                deformation = np.eye(3) + 0.5 * (strain + strain.T)
                copied.set_cell(copied.cell.array @ deformation, scale_atoms=True)
            copied.positions += rng.normal(0.0, config.displacement, copied.positions.shape)
            out.append(copied)
        contacts = (close_contact(atoms, rng) for _ in range(config.contacts))
        out.extend(c for c in contacts if c is not None)
    return out


def structures_digest(structures: Iterable[Atoms]) -> str:
    """Changes when a structure does."""
    digest = hashlib.sha256()
    for atoms in structures:
        for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(read_digest(atoms))
    return digest.hexdigest()[:16]


def plan_trajectories(
    number: int, conditions: Sequence[MDCondition], structures: Sequence[list[Atoms]], config: LoopOptions
) -> list[Trajectory]:
    """All trajectories of a round; the same arguments always give the same ones."""
    plan: list[Trajectory] = []
    for driver in config.drivers:
        for index, (condition, pool) in enumerate(zip(conditions, structures)):
            rng = np.random.default_rng([config.seed, number, index, int(driver == "student")])
            order = rng.permutation(len(pool))
            points = [point for point in condition.points() for _ in range(condition.trajectories)]
            for taken, (temperature, pressure) in enumerate(points):
                plan.append(
                    Trajectory(
                        number=len(plan) + 1,
                        round=number,
                        driver=driver,
                        condition=condition,
                        temperature=temperature,
                        pressure=pressure,
                        start=pool[order[taken % len(pool)]],
                        seed=int(rng.integers(2**31)),
                    )
                )
    return plan
