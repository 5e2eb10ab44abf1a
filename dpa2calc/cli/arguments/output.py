"""Names of output files, made from the input's, so that two structures in one folder do not meet."""

from __future__ import annotations

import argparse
import os
import re
from functools import lru_cache
from pathlib import Path

from dpa2calc.files.atomic import check_writable

_PACKED = (".bz2", ".gz", ".xz", ".zst")
# beside those that ASE lists
_FORMATS = (
    "aselmdb", "bundle", "contcar", "dump", "h5", "hdf", "hdf5", "lammpstrj", "lmdb", "lmp", "mcif", "nc",
    "npz", "txt",
)  # fmt: skip
_VASP = ("CONTCAR", "OUTCAR", "POSCAR", "XDATCAR")
_SAME_EVERYWHERE = ("trajectory", "vasprun", "geometry")  # the folder tells such files apart


def stem(path: str) -> str:
    """What a file is called in the names of what is made from it.

    Example:
        >>> stem("water.extxyz.xz"), stem("Cu/POSCAR"), stem("md/water/trajectory.traj"), stem("a.extxyz@3")
        ('water', 'Cu-POSCAR', 'water', 'a-3')
    """
    named = re.fullmatch(r"(.+)@(-?\d+)", path)  # one frame of a file
    if named and not os.path.exists(path):
        return f"{stem(named[1])}-{named[2]}"
    file = Path(path)
    if file.suffix.lower() in _PACKED:
        file = file.with_suffix("")
    folder = file.resolve().parent.name
    if file.name.split(".")[0] in _VASP:
        return "-".join(part for part in (folder, *file.name.split(".")) if part)
    if (own := without_ending(file.name)) in _SAME_EVERYWHERE:
        return folder if folder and own == "trajectory" else f"{folder}-{own}".strip("-")
    return own


def without_ending(name: str) -> str:
    """The name of a file without an ending that tells its format; `Cu_a3.61` has none, and stays.

    Example:
        >>> without_ending("Cu_a3.61.cif"), without_ending("Cu_a3.61"), without_ending("POSCAR.hcp")
        ('Cu_a3.61', 'Cu_a3.61', 'POSCAR.hcp')
    """
    own, _, ending = name.rpartition(".")
    return own if own and ending.lower() in _endings() else name


@lru_cache(maxsize=1)
def _endings() -> frozenset[str]:
    """Of files of structures and trajectories: ASE's, and names of its formats, which it takes as well."""
    from ase.io.formats import ioformats

    found = {*_FORMATS, *ioformats}
    for known in ioformats.values():
        found |= {*known.extensions, *(glob.rpartition("*.")[2] for glob in known.globs)}
    return frozenset(name.lower() for name in found if name and not name.isdigit())


def structure_name(args: argparse.Namespace) -> str:
    """The name of a verb's structure: file, frame if one was chosen, and repeats."""
    frame = "" if args.index in (None, -1) else f"-{args.index}"
    repeats = "-" + "x".join(map(str, args.repeat)) if args.repeat else ""
    return f"{stem(args.structure)}{frame}{repeats}"


def choose_folder(args: argparse.Namespace, verb: str, *details: str) -> Path:
    """The folder of --out, VERB/NAME when left out; args.out is set to it.

    Args:
        details: what else tells two calculations of one structure apart, such as a face.

    Raises:
        OutputError: it cannot be written to.
    """
    if args.out is None:
        args.out = str(Path(verb) / "-".join([structure_name(args), *details]))
    return check_writable(args.out, folder=True)


def check_files(*paths: str | None) -> None:
    """Find out before the work that output files cannot be written.

    Raises:
        OutputError: no permission, or a folder of that name.
    """
    for path in paths:
        if path:
            check_writable(path)
