"""Who owns which ghost, and how forces on ghosts come back to their owners (MPI through mpi4py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpa2calc.errors import DPA2CalcError, StructureError


class Exchange:
    """The processes' atoms between two of LAMMPS's exchanges; made by all processes at the same time.

    Args:
        comm: of mpi4py.
        ids: LAMMPS's IDs of own atoms, then of ghosts. n: number of own atoms.
    """

    def __init__(self, comm: Any, ids: np.ndarray, n: int) -> None:
        self._comm = comm
        self._counts = np.array(comm.allgather(n))
        self._all_ids = self._gather(ids[:n].astype(np.int64))
        self._sorted = np.argsort(self._all_ids)
        self._check_ids()
        # Position of each ghost's owner in the list of all atoms.
        self._ghosts = self._sorted[np.searchsorted(self._all_ids[self._sorted], ids[n:])]
        begins = np.cumsum(self._counts) - self._counts
        owner = np.searchsorted(begins, self._ghosts, side="right") - 1
        # Processes without atoms begin where the next one does: the last of them has the atom.
        self._outward = np.argsort(owner, kind="stable")
        self._sent = np.bincount(owner, minlength=comm.Get_size())
        self._received = np.empty_like(self._sent)
        comm.Alltoall(self._sent, self._received)
        places = (self._ghosts - begins[owner])[self._outward]
        self._places = self._to_owners(places, 1).ravel()

    def _check_ids(self) -> None:
        if not len(self._all_ids):
            raise StructureError("LAMMPS has no atoms; the model needs at least one")
        if not np.diff(self._all_ids[self._sorted]).all():
            raise StructureError(
                "several atoms have the same ID, so that forces cannot be handed to their owners; leave out "
                "`atom_modify id no`, write `reset_atoms id`, or run it on one process"
            )

    def _gather(self, values: np.ndarray) -> np.ndarray:
        """Values of all processes' own atoms, one after the other."""
        width = int(np.prod(values.shape[1:], dtype=np.int64))
        out = np.empty((self._counts.sum(), *values.shape[1:]), values.dtype)
        self._comm.Allgatherv(np.ascontiguousarray(values), [out, self._counts * width])
        return out

    def _to_owners(self, values: np.ndarray, width: int) -> np.ndarray:
        out = np.empty((self._received.sum(), width), values.dtype)
        self._comm.Alltoallv(
            [np.ascontiguousarray(values), self._sent * width], [out, self._received * width]
        )
        return out

    def collect(self, forces: np.ndarray, n: int) -> np.ndarray:
        """Forces on own atoms (n, 3): what this process found, and what the others found on their ghosts."""
        back = self._to_owners(forces[n:][self._outward], 3)
        sums = [np.bincount(self._places, weights=back[:, a], minlength=n) for a in range(3)]
        return forces[:n] + np.stack(sums, axis=1)

    def sum(self, values: np.ndarray) -> list[float]:
        """Numbers (n,) summed over the processes."""
        total = np.empty_like(values)
        self._comm.Allreduce(values, total)
        return total.tolist()

    def first_error(self, own: BaseException | None) -> BaseException:
        """The error of the first process that has one, on every process."""
        if isinstance(own, StructureError):
            own = StructureError(f"{own} (atoms of process {self._comm.Get_rank()}, counted from 0)")
        elif own is not None and not isinstance(own, DPA2CalcError):
            own = RuntimeError(f"{type(own).__name__}: {own}")  # some errors cannot be sent
        errors = self._comm.allgather(own)
        found: BaseException = next(error for error in errors if error is not None)
        return found

    def of_first(self, values: np.ndarray) -> int:
        """The value of the atom with the smallest ID; `values` (n,) of own atoms."""
        return int(self._gather(values.astype(np.int64))[self._sorted[0]])

    def missing_ghosts(
        self, fractions: np.ndarray, low: np.ndarray, high: np.ndarray, width: np.ndarray, pbc: np.ndarray
    ) -> int:
        """How many ghosts processes lack that they should have.

        Args:
            fractions: (n, 3) of own atoms in the box; low, high: (3,) this process's part of it.
            width: (3,) of the layer of ghosts around each part, all in fractions of the box.
        """
        places = self._gather(fractions)
        # Images of each atom inside the part and its layer, along each direction.
        images = np.floor(high + width - places) - np.ceil(low - width - places) + 1.0
        inside = (places >= low - width) & (places <= high + width)
        expected = np.where(pbc, np.maximum(images, 0.0), inside).prod(axis=1)
        own = self._comm.Get_rank()
        begin = int(self._counts[:own].sum())
        expected[begin : begin + self._counts[own]] -= 1.0
        found = np.bincount(self._ghosts, minlength=len(expected))
        lacking = int(np.maximum(expected - found, 0.0).sum())
        return int(self._comm.allreduce(lacking))
