"""i-PI: a driver inside its process (`ffdirect`), with all beads in one call, and one that answers a socket.

In i-PI's input, with the path of this file as `pes_path`:

    <ffdirect name="dpa2"> <pes> custom </pes> <pes_path> .../dpa2calc/integrations/ipi_driver.py </pes_path>
      <batch_size> 8 </batch_size>
      <parameters> {template: water.extxyz, model: student-water} </parameters>
    </ffdirect>
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import socket
import time
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.socketio import IPIProtocol, SocketClosed, actualunixsocketname
from ase.stress import voigt_6_to_full_3x3_stress

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.engine.dense import Results
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.structures import read_structures

__DRIVER_NAME__ = "dpa2calc"
__DRIVER_CLASS__ = "DPA2Driver"

_log = logging.getLogger(__name__)
_PAUSE = 0.5  # s between attempts to connect


class DPA2Driver:
    """The driver class of i-PI's `ffdirect`.

    Args:
        template: a structure file with the atoms in i-PI's order, and with a cell. Its pbc is used, its
            positions and the numbers of its cell are not.
        model, head, options: as of `DPA2Calculator`.
        verbosity, verbose: i-PI's; nothing is printed here.

    Raises:
        ConfigError: a template without a cell. HeadError, CheckpointError, DataError: as usual.
    """

    def __init__(
        self,
        template: str | os.PathLike[str],
        model: str = "default",
        head: str | None = None,
        *,
        verbosity: object = None,
        verbose: object = None,
        **options: Any,
    ) -> None:
        (self._template,) = read_structures(template, 0)
        if self._template.cell.rank == 0:
            raise ConfigError(
                f"template = {str(template)!r} has no cell, so it does not say which directions are "
                'periodic; write extxyz with Lattice="..." and pbc="T T T" (a molecule: pbc="F F F")'
            )
        self._calculator = DPA2Calculator(model, head, **options)
        self._beads: list[Atoms] = []

    def __call__(self, cell: Any, pos: Any) -> Any:
        """Energy, forces, virial (atomic units) and extras of one structure, or a list of them for lists.

        Args:
            cell: (3, 3) bohr, vectors as columns; or a list. pos: (n_atoms, 3) bohr; or a list.
        """
        several = isinstance(cell, list)
        cells, positions = (cell, pos) if several else ([cell], [pos])
        while len(self._beads) < len(cells):
            self._beads.append(self._template.copy())
        beads = self._beads[: len(cells)]
        for atoms, vectors, points in zip(beads, cells, positions):
            place(atoms, np.asarray(vectors).T * units.Bohr, np.asarray(points) * units.Bohr)
        pairs = zip(beads, self._results(beads))
        found = [(*in_atomic_units(*energy_forces_virial(atoms, results)), "") for atoms, results in pairs]
        return found if several else found[0]

    def _results(self, beads: list[Atoms]) -> list[Results]:
        if not self._calculator._streams:
            return self._calculator.evaluate(beads)
        # a tabulated student is faster bead by bead, each with its own list of neighbours
        for atoms in beads:
            if atoms.calc is None:
                atoms.calc = copy.copy(self._calculator)
            atoms.get_potential_energy()
        return [atoms.calc.results for atoms in beads]


def place(atoms: Atoms, cell: np.ndarray, positions: np.ndarray) -> None:
    """Move atoms, Å.

    Raises:
        StructureError: of another number.
    """
    if len(positions) != len(atoms):
        raise StructureError(
            f"i-PI sent {len(positions)} atoms, and the structure here has {len(atoms)}; give both programs "
            "the same structure, with its atoms in the same order"
        )
    atoms.cell[:] = cell
    atoms.positions[:] = positions


def energy_forces_virial(atoms: Atoms, results: Results) -> tuple[float, np.ndarray, np.ndarray]:
    """In eV, eV/Å (n_atoms, 3), eV (3, 3); the virial is 0 where there is no stress."""
    virial = np.zeros((3, 3))
    if "stress" in results:
        virial = -atoms.get_volume() * voigt_6_to_full_3x3_stress(results["stress"])
    return float(results["energy"]), results["forces"], virial


def in_atomic_units(
    energy: float, forces: np.ndarray, virial: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """In hartree, hartree/bohr, hartree."""
    return energy / units.Hartree, forces * units.Bohr / units.Hartree, virial / units.Hartree


def serve(
    atoms: Atoms,
    *,
    host: str = "localhost",
    port: int = 31415,
    unixsocket: str | None = None,
    patience: float = 60.0,
) -> int:
    """Answer a program that speaks i-PI's protocol, until it says that it ends or is gone.

    Connects, and connects again when the connection is lost. i-PI's `<ffsocket>` and `SocketIOCalculator` of
    ASE listen; this is what they call a driver or client. One process answers one structure at a time: start
    as many as there are beads to have them computed side by side.

    Args:
        atoms: with a calculator; moved as the program says. Its pbc stays, so it needs a cell if the program
            sends one. Constraints are left to the program.
        host, port: where the program listens; "localhost" is reached from this machine only.
        unixsocket: the name of a UNIX socket (/tmp/ipi_NAME) in place of host and port.
        patience: s that the program may take to listen, at first and after a lost connection.

    Returns:
        the number of structures that were answered.

    Raises:
        ConfigError: nobody listened within `patience`, or a port or patience that is none; what listens
            speaks another protocol, or sends a cell for a structure without one.
        StructureError: another number of atoms, or a structure that cannot be evaluated.
    """
    if not 0 < port < 1 << 16:
        raise ConfigError(f"port = {port} is not allowed; allowed: 1 to 65535")
    if not patience >= 0:
        raise ConfigError(f"patience = {patience} is not allowed; allowed: 0 s or more")
    where = f"{host}:{port}" if unixsocket is None else actualunixsocketname(unixsocket)
    if atoms.pbc.any() and not _offers_stress(atoms):
        _log.warning("%s gives no stress: constant pressure will not work", type(atoms.calc).__name__)
    answered = 0
    while True:
        connection = _connect(host, port, unixsocket, patience)
        if isinstance(connection, OSError):
            if not answered:
                raise ConfigError(
                    f"nobody listens at {where} after {patience:g} s ({connection.strerror or connection}); "
                    "start i-PI first, and compare its <ffsocket> with host, port and unixsocket here"
                )
            _log.info("nobody listens at %s any more; %d structures were answered", where, answered)
            return answered
        _log.info("connected to %s", where)
        with connection:
            count, ended = _answer(IPIProtocol(connection), atoms)
        answered += count
        if ended:
            _log.info("the program has ended; %d structures were answered", answered)
            return answered
        _log.info("connection lost after %d structures; connecting again for %g s", answered, patience)


def _connect(host: str, port: int, unixsocket: str | None, patience: float) -> socket.socket | OSError:
    """A connection, or why there is none if nobody listens in time."""
    deadline = time.monotonic() + patience
    while True:
        left = max(_PAUSE, deadline - time.monotonic())
        try:
            if unixsocket is None:
                made = socket.create_connection((host, port), timeout=left)
                made.settimeout(None)
                return made
            made = socket.socket(socket.AF_UNIX)
            try:
                made.connect(actualunixsocketname(unixsocket))
            except OSError:
                made.close()
                raise
            return made
        except OSError as error:
            if time.monotonic() > deadline:
                return error
            time.sleep(_PAUSE)


def _answer(protocol: IPIProtocol, atoms: Atoms) -> tuple[int, bool]:
    """Answer one connection; how many structures, and whether the program said that it ends."""
    answered, state, found = 0, "READY", None
    while True:
        try:
            message, moved = _received(protocol)
            if message == "EXIT":
                return answered, True
            if message == "STATUS":
                protocol.sendmsg(state)
            elif message == "POSDATA":
                _check_cell(atoms, moved[0])
                place(atoms, *moved)
                found, state = energy_forces_virial(atoms, _evaluated(atoms)), "HAVEDATA"
            elif message == "GETFORCE" and found is not None:
                protocol.sendforce(*found)
                answered, state = answered + 1, "READY"
            elif message != "INIT":
                raise _no_protocol(repr(message))
        except (SocketClosed, ConnectionError):
            return answered, False


def _received(protocol: IPIProtocol) -> tuple[str, tuple[np.ndarray, ...]]:
    """The next message, with cell (3, 3) and positions (n_atoms, 3) in Å where it brings them.

    Raises:
        ConfigError: bytes that are no message.
    """
    try:
        message = str(protocol.recvmsg())
        if message == "INIT":
            protocol.recvinit()
        if message != "POSDATA":
            return message, ()
        cell, _, positions = protocol.recvposdata()
    except (AssertionError, MemoryError, ValueError) as error:  # letters or numbers that are none
        raise _no_protocol(f"bytes that make no sense ({str(error) or 'not finite'})") from error
    return message, (cell, positions)


def _no_protocol(sent: str) -> ConfigError:
    return ConfigError(
        f"the program sent {sent}, which is no message of i-PI's protocol at this point; does something else "
        "listen there?"
    )


def _check_cell(atoms: Atoms, cell: np.ndarray) -> None:
    """Raise where a periodic structure would be taken for a molecule."""
    if atoms.cell.rank == 0 and not atoms.pbc.any() and np.any(cell):
        raise ConfigError(
            "the program sends a cell, and the structure here has none, so it does not say which directions "
            'are periodic; write extxyz with Lattice="..." and pbc="T T T" (a molecule: pbc="F F F")'
        )


def _evaluated(atoms: Atoms) -> Results:
    """What is sent; asked for one by one, as some calculators compute no more than that."""
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(apply_constraint=False)}
    with contextlib.suppress(NotImplementedError):  # no stress is defined
        if atoms.cell.rank == 3 and _offers_stress(atoms):
            found["stress"] = atoms.get_stress(apply_constraint=False)
    return found


def _offers_stress(atoms: Atoms) -> bool:
    return "stress" in getattr(atoms.calc, "implemented_properties", ())
