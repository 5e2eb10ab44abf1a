"""Supercells of perovskites and their solid solutions, with random or ordered B sites."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from ase import Atoms

from dpa2calc.applications.shared.application import application
from dpa2calc.errors import ConfigError

_APART = 3  # formula units from the fraction asked for; the nearest whole ones are no farther
Ordering = Literal["random", "rocksalt"]


@application
def solid_solution(*, sites: int | None = None, **parts: float) -> dict[str, float]:
    """B-site fractions of PIN-PMN-PT and relatives from the fractions of their end members.

    Known names: PT (PbTiO3), PZ (PbZrO3), PMN (Pb Mg1/3 Nb2/3 O3), PIN (Pb In1/2 Nb1/2 O3), PZN (Pb Zn1/3
    Nb2/3 O3), PSN (Pb Sc1/2 Nb1/2 O3).

    Args:
        sites: number of B sites of a supercell; the fractions are then those of the nearest composition of
            whole formula units, so that the cell stays neutral (rounding each element by itself does not).
        parts: fractions of the end members, which add up to 1.

    Example:
        >>> solid_solution(PIN=0.29, PMN=0.45, PT=0.26)
        {'In': 0.145, 'Nb': 0.445, 'Mg': 0.15, 'Ti': 0.26}
    """
    known = {
        "PT": {"Ti": 1.0},
        "PZ": {"Zr": 1.0},
        "PMN": {"Mg": 1 / 3, "Nb": 2 / 3},
        "PIN": {"In": 1 / 2, "Nb": 1 / 2},
        "PZN": {"Zn": 1 / 3, "Nb": 2 / 3},
        "PSN": {"Sc": 1 / 2, "Nb": 1 / 2},
    }
    for name in parts:
        if name not in known:
            raise ConfigError(f"{name} is not a known end member; the names are {', '.join(known)}")
    if min(parts.values(), default=0.0) < 0.0 or abs(sum(parts.values()) - 1) > 1e-6:
        raise ConfigError(
            f"the fractions {parts} add up to {sum(parts.values()):g}; they must be 0 or more and add up to 1"
        )
    if sites is not None and sites < 1:
        raise ConfigError(f"sites = {sites} is not allowed; allowed: 1, 2, 3, ... B sites, or None")
    fractions: dict[str, float] = {}
    chosen = parts if sites is None else _whole_units(parts, known, sites)
    for name, amount in chosen.items():
        for element, share in known[name].items():
            fractions[element] = fractions.get(element, 0.0) + amount * share
    return {element: round(value, 10) for element, value in fractions.items()}


def _whole_units(
    parts: Mapping[str, float], known: Mapping[str, Mapping[str, float]], sites: int
) -> dict[str, float]:
    """The nearest fractions for which every end member has whole formula units on `sites` sites."""
    names = list(parts)
    sizes = [round(1 / min(known[name].values())) for name in names]  # sites of a formula unit: 1, 2 or 3
    nearest = [int(parts[name] * sites / size) for name, size in zip(names, sizes)]
    choices = [range(max(0, n - _APART), n + _APART + 1) for n in nearest]
    best: tuple[float, tuple[int, ...]] | None = None
    for units in itertools.product(*choices):
        taken = [n * size for n, size in zip(units, sizes)]
        if sum(taken) == sites:
            away = sum((k / sites - parts[name]) ** 2 for k, name in zip(taken, names))
            if best is None or away < best[0]:
                best = away, units
    if best is None:
        raise ConfigError(f"{sites} sites cannot hold whole formula units of {', '.join(names)}; take more")
    return {name: n * size / sites for name, n, size in zip(names, best[1], sizes)}


@application
def perovskite(
    a_site: str,
    b_sites: str | Mapping[str, float],
    *,
    repeats: tuple[int, int, int] = (1, 1, 1),
    lattice_constant: float = 4.0,
    anion: str = "O",
    ordering: Ordering = "random",
    polar_shift: float | Sequence[float] = 0.0,
    seed: int = 0,
) -> Atoms:
    """A cubic ABX3 supercell; each cell has A at the corner, B in the middle, X on the faces.

    Args:
        a_site: element.
        b_sites: element, or fractions by element (they are rounded to whole atoms; the rounding keeps
            the sum, and the largest remainders are rounded up).
        repeats: cells along x, y, z.
        lattice_constant: of one cell, Å.
        anion: element X.
        ordering: "random" puts the B atoms on sites at random; "rocksalt" puts the commonest B element
            (Nb in PIN-PMN-PT) on one of two alternating sublattices as far as it goes, the 1:1 order
            known from these relaxors; needs even repeats.
        polar_shift: shift of all A and B ions relative to X, Å, to start in one domain: a number for
            +z, or a vector.
        seed: of the random choice.

    Example:
        >>> fractions = solid_solution(PIN=0.29, PMN=0.45, PT=0.26)
        >>> atoms = perovskite("Pb", fractions, repeats=(6, 6, 6), lattice_constant=4.05)
    """
    if min(repeats) < 1:
        raise ConfigError(f"repeats is {repeats}; give three whole numbers of at least 1")
    if lattice_constant <= 0:
        raise ConfigError(f"lattice_constant is {lattice_constant}; it must be above 0 Å")
    cells = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), axis=-1).reshape(-1, 3)
    fractions = {b_sites: 1.0} if isinstance(b_sites, str) else dict(b_sites)
    counts = _whole_numbers(fractions, len(cells))
    rng = np.random.default_rng(seed)
    elements = _arrange(counts, cells, repeats, ordering, rng)
    up = np.array([0, 0, polar_shift] if np.ndim(polar_shift) == 0 else polar_shift)
    faces = np.array([[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    a, anions = lattice_constant, (cells[:, None] + faces).reshape(-1, 3)  # (n, 3, 3) -> (3 n, 3)
    positions = np.concatenate([cells * a + up, (cells + 0.5) * a + up, anions * a])
    symbols = [a_site] * len(cells) + elements + [anion] * (3 * len(cells))
    return Atoms(symbols, positions=positions, cell=np.array(repeats) * a, pbc=True)


def _whole_numbers(fractions: Mapping[str, float], n_sites: int) -> dict[str, int]:
    """Whole numbers of atoms that add up to n_sites, largest remainders rounded up."""
    if any(value < 0 for value in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ConfigError(f"the B-site fractions {dict(fractions)} must be 0 or more and add up to 1")
    exact = {name: value * n_sites for name, value in fractions.items()}
    counts = {name: int(np.floor(value + 1e-9)) for name, value in exact.items()}
    order = sorted(exact, key=lambda name: counts[name] - exact[name])
    for name in order[: n_sites - sum(counts.values())]:
        counts[name] += 1
    return {name: count for name, count in counts.items() if count}


def _arrange(
    counts: dict[str, int], cells: np.ndarray, repeats: tuple[int, int, int], ordering: Ordering,
    rng: np.random.Generator,
) -> list[str]:  # fmt: skip
    """One element for each cell."""
    shuffled = [name for name, count in counts.items() for _ in range(count)]
    if ordering == "random":
        return [shuffled[k] for k in rng.permutation(len(shuffled))]
    if any(n % 2 for n in repeats):
        raise ConfigError(f"rocksalt order needs even repeats, not {repeats}")
    common = max(counts, key=lambda name: counts[name])
    # the commonest fills the even sublattice first
    sublattices = [np.flatnonzero(cells.sum(axis=1) % 2 == parity) for parity in (0, 1)]
    sites = np.concatenate([rng.permutation(places) for places in sublattices])
    others = [name for name in shuffled if name != common]
    chosen = [common] * counts[common] + [others[k] for k in rng.permutation(len(others))]
    elements = np.empty(len(cells), dtype=object)
    elements[sites] = chosen
    return [str(name) for name in elements]
