"""Runs an input file of LAMMPS whose pair style is a model of this package."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ase.calculators.calculator import Calculator

from dpa2calc.errors import ConfigError, DataError

from .attach import attach
from .wheel import communicator, start

_log = logging.getLogger(__name__)

STYLE = "dpa2calc"
_TEXT: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}  # comments may be of any encoding
_EXAMPLE = "pair_style dpa2calc\npair_coeff * * O H"


class Script(NamedTuple):
    """Commands before the model is attached, elements of the LAMMPS types, commands after that."""

    before: str
    types: tuple[str, ...]
    after: str


def read_script(path: str | Path) -> Script:
    """Split an input file at its lines `pair_style dpa2calc` and `pair_coeff * * O H`.

    Raises:
        DataError: no such file, or these lines are missing, not as they must be, or there is more of them.
    """
    file = Path(path)
    try:
        text = file.read_text(**_TEXT)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {file}; give an input file of LAMMPS") from error
    before: list[str] = []
    after: list[str] = []
    types: tuple[str, ...] = ()
    styled = False
    for number, raw, words in _commands(text):
        place = f"{file}, line {number}"
        name, rest = (words[0], words[1:]) if words else ("", [])
        if name == "pair_style":
            if styled or rest != [STYLE]:
                raise DataError(
                    f"{place}: {' '.join(words)}; write `pair_style {STYLE}`, once and without options"
                )
            styled = True
        elif name == "pair_coeff":
            if not styled or types or rest[:2] != ["*", "*"] or len(rest) < 3:
                raise DataError(
                    f"{place}: {' '.join(words)}; after `pair_style {STYLE}` write one line "
                    "`pair_coeff * * O H`, with the element of each LAMMPS type"
                )
            types = tuple(rest[2:])
        elif name == "clear":
            raise DataError(f"{place}: `clear` would take the model away; make it two input files")
        elif (name, *rest[:1]) == ("run_style", "respa"):
            raise DataError(
                f"{place}: `run_style respa` leaves out the model's forces; take `run_style verlet`"
            )
        else:
            (after if types else before).append(raw)
    if not types:
        raise DataError(f"{file} has no lines\n{_EXAMPLE}\nPut them where a pair style belongs")
    return Script("".join(before), types, "".join(after))


def _commands(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Number of the first line, text, and words without comments of each command, continued lines joined."""
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        first = at
        while lines[at].split("#")[0].rstrip().endswith("&") and at + 1 < len(lines):
            at += 1
        at += 1
        raw = "".join(lines[first:at])
        joined = " ".join(line.split("#")[0].rstrip().removesuffix("&") for line in lines[first:at])
        yield first + 1, raw if raw.endswith("\n") else raw + "\n", joined.split()


def run_script(path: str | Path, calculator: Calculator, arguments: Sequence[str] = ()) -> Any:
    """Run an input file with a calculator as its pair style; returns the `lammps.lammps` at the end.

    Args:
        path: has the lines `pair_style dpa2calc` and `pair_coeff * * O H` (elements of the LAMMPS types)
            after the box is made, and no `clear`.
        calculator: as for `attach`.
        arguments: command-line options of LAMMPS, such as ["-var", "T", "300"].

    Raises:
        DataError: as `read_script`. ConfigError: LAMMPS refuses a command. Others: as `attach`, and errors of
        the calculator.
    """
    script = read_script(path)
    lmp = start(arguments)
    _share_cores(lmp)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _run(lmp, script.before, Path(folder) / "before")
            attach(lmp, calculator, script.types)
            _run(lmp, script.after, Path(folder) / "after")
    except BaseException:
        lmp.close()
        raise
    return lmp


def _share_cores(lmp: Any) -> None:
    """Give each process of several its share of the machine's cores, unless OMP_NUM_THREADS says how many."""
    import torch

    if lmp.extract_setting("world_size") > 1 and "OMP_NUM_THREADS" not in os.environ:
        from mpi4py import MPI

        beside = communicator(lmp).Split_type(MPI.COMM_TYPE_SHARED).Get_size()
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // beside))


def _run(lmp: Any, text: str, file: Path) -> None:
    file.write_text(text, **_TEXT)  # a file, because loops jump inside it
    try:
        lmp.file(str(file))
    except Exception as error:
        if type(error).__name__ == "MPIAbortException" and lmp.extract_setting("world_size") > 1:
            # on this process alone: the others wait for it, and always would
            _log.error("LAMMPS stopped on one process: %s", error)
            time.sleep(1.0)  # mpirun would drop what it has not passed on yet
            communicator(lmp).Abort(1)
        if type(error).__module__ in ("builtins", "lammps.core"):  # LAMMPS's own errors
            raise ConfigError(f"LAMMPS stopped: {error}") from error
        raise
