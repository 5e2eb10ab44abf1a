"""LAMMPS on several processes: each computes its own atoms with ghosts around them; forces are exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.engine.cluster import Cluster, width_of_ghosts
from dpa2calc.engine.committee import Member
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.structures.graph_spec import type_indices
from dpa2calc.validation import DistanceCheck, check_finite

from .exchange import Exchange
from .state import Box, own_and_ghosts, own_atoms, per_atom, read_box
from .wheel import communicator
from .whole import Share

_WAYS = (
    "Ways out: one process; a larger system or fewer processes; a student of the model (`dpa2calc distill`), "
    "which passes no messages; or deepmd-kit's pair_style, which exchanges after each layer (docs/lammps.md)"
)


class Parts:
    """Evaluates the atoms of this process with one model that LAMMPS's ghosts suffice for."""

    def __init__(self, lmp: Any, calculator: Calculator, symbols: Sequence[str]) -> None:
        self._lmp, self._comm = lmp, communicator(lmp)
        chosen = _divisible(calculator)
        member, self._skin = chosen._members[0], chosen.skin
        self._width = width_of_ghosts(member) + self._skin
        if member.potential.descriptor.message_passing:
            self._refuse_waste(member)
        self._symbols = Atoms(list(symbols))
        self._numbers = np.array([0, *self._symbols.numbers])
        self._type_of = np.array([0, *type_indices(self._symbols, member.spec)])
        self._cluster = Cluster(member, skin=self._skin, check=DistanceCheck())
        self._exchange: Exchange | None = None
        self._box: Box | None = None
        self._start = np.empty((0, 3))
        self._first_type = 0
        for line in (
            "comm_style brick",
            f"comm_modify mode single cutoff {self._width!r}",
            f"neighbor {self._skin!r} bin",
            "neigh_modify every 1 delay 0 check yes",
        ):
            lmp.command(line)

    def __call__(self) -> Share:
        """Energy, forces and virial at this step; every process calls it at the same time."""
        lmp, n, total = self._lmp, own_atoms(self._lmp), own_and_ghosts(self._lmp)
        box, x, kinds = read_box(lmp), per_atom(lmp, "x", total), per_atom(lmp, "type", total)
        if self._exchange is None or lmp.extract_setting("neigh_ago") == 0:
            self._renew(box, x, kinds, n)
        assert self._exchange is not None
        error: BaseException | None = None
        late = self._behind(box, x[:n])
        forces, energies, virial = np.zeros((total, 3)), np.zeros(n), np.zeros((3, 3))
        try:
            if n:
                atoms = Atoms(self._numbers[kinds], x)  # a copy: LAMMPS's memory is its own
                output = self._cluster(atoms, n, self._first_type)
                energies, forces = output.atomic_energies.detach().cpu().numpy(), output.forces.cpu().numpy()
                virial = output.virial[0].cpu().numpy()
                check_finite({"energies": energies, "forces": forces})
        except BaseException as caught:
            error = caught
        mine = np.array([*(late > 0.0), error is not None, energies.sum(), *virial.ravel()], dtype=float)
        *behind, failed, energy = (sums := self._exchange.sum(mine))[:4]
        if all(behind):
            raise StructureError(
                "atoms have moved so far since LAMMPS last looked for ghosts that pairs may be missing (skin "
                f"{self._skin:g} Å); take out what changes `neighbor` or `neigh_modify` after the model was "
                "attached, or take a shorter time step"
            )
        if failed:
            raise self._exchange.first_error(error)
        return Share(energy, energies, self._exchange.collect(forces, n), np.reshape(sums[4:], (3, 3)))

    def _renew(self, box: Box, x: np.ndarray, kinds: np.ndarray, n: int) -> None:
        """After LAMMPS has given atoms to other processes: who owns the ghosts, and are all of them here."""
        ids = per_atom(self._lmp, "id", len(x))
        self._exchange = Exchange(self._comm, ids, n)
        self._box, self._start = box, x[:n].copy()
        self._first_type = self._exchange.of_first(self._type_of[kinds[:n]])
        low, high = self._sub_box(box)
        missing = self._exchange.missing_ghosts(
            (x[:n] - box.low) @ np.linalg.inv(box.cell),
            low,
            high,
            (self._width - 1e-6) / box.heights,
            box.pbc,
        )
        if missing:
            raise StructureError(
                f"{missing} ghost atoms are missing within {self._width:g} Å of a process's box, so that "
                "forces would be wrong; take out what changes `comm_modify` after the model was attached"
            )

    def _sub_box(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """This process's part of the box, in fractions of it."""
        lmp = self._lmp
        if lmp.extract_setting("triclinic"):
            return np.array(lmp.extract_global("sublo_lambda")), np.array(lmp.extract_global("subhi_lambda"))
        edges = box.cell.diagonal()
        low, high = (np.array(lmp.extract_global(name)) for name in ("sublo", "subhi"))
        return (low - box.low) / edges, (high - box.low) / edges

    def _behind(self, box: Box, x: np.ndarray) -> np.ndarray:
        """By how much pairs may be missing since the last exchange, (2,) in Å: none if one of them is <= 0.

        A pair now within the width less the skin must have been within the width. First bound: displacements
        as they are, and those of images with the box. Second: displacements that the strain of the box does
        not explain. LAMMPS itself exchanges atoms when the first is used up.
        """
        assert self._box is not None
        old, skin = self._box, self._skin * (1 + 1e-9)
        corners = 2.0 * np.indices((2, 2, 2)).reshape(3, 8).T - 1.0
        images = corners * np.ceil(self._width / box.heights) @ (box.cell - old.cell)
        plain = 2.0 * _longest(x - self._start) + _longest(images) - skin
        strain = np.linalg.inv(old.cell) @ box.cell
        moved = _longest(x - box.low - (self._start - old.low) @ strain)
        squeezed = (1.0 - np.linalg.svd(strain, compute_uv=False)[-1]) * self._width
        return np.array([plain, squeezed + 2.0 * moved - skin])

    def _refuse_waste(self, member: Member) -> None:
        """Refuse message-passing models whose ghosts are as many as the whole structure."""
        lmp, box = self._lmp, read_box(self._lmp)
        grid = np.array(lmp.extract_global("procgrid"))
        longest = np.where(box.pbc, np.inf, 1.0)  # nothing lies beyond a side that is not periodic
        share = np.minimum(1.0 / grid + 2.0 * self._width / box.heights, longest).prod()
        if share >= 1.0:
            raise ConfigError(
                f"{member.label} passes messages: its energies need all atoms within {self._width:.4g} Å "
                f"(skin included). With {' x '.join(map(str, grid))} processes in a box of "
                f"{' x '.join(f'{h:.4g}' for h in box.heights)} Å each would compute {share:.3g} times the "
                f"whole structure, and nothing is gained. {_WAYS}"
            )


def _longest(vectors: np.ndarray) -> float:
    return float(np.sqrt((vectors**2).sum(axis=1).max(initial=0.0)))


def _divisible(calculator: Calculator) -> DPA2Calculator:
    """A calculator of one model and nothing else.

    Raises:
        ConfigError: another calculator, a committee, dispersion.
    """
    if not isinstance(calculator, DPA2Calculator):
        raise ConfigError(
            f"on several processes only a DPA2Calculator can be divided, not {type(calculator).__name__}; "
            "run it on one process"
        )
    if len(calculator._members) > 1 or calculator.dispersion is not None:
        what = "a committee" if len(calculator._members) > 1 else "dispersion"
        raise ConfigError(f"{what} cannot be divided among processes; leave it out, or run it on one process")
    return calculator
