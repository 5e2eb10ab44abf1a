"""Patterns such as `runs/*.extxyz` in lists of files, for shells and files that do not expand them."""

from __future__ import annotations

import glob
import os
from pathlib import Path


def expanded(name: str, root: Path) -> list[Path]:
    """The files that a name means, below `root` unless it is absolute: itself, or what the pattern matches.

    `file.h5#group` is there where the file is; an empty name, as of a shell's variable that is not set, means
    nothing, and not `root`.

    Returns:
        Paths in alphabetical order; none where nothing is there.

    Example:
        >>> expanded("train/*.extxyz", Path("runs"))
    """
    if not name:
        return []
    there = os.path.exists(root / name) or os.path.isfile(root / name.partition("#")[0])
    if there or not glob.has_magic(name):
        return [root / name] if there else []
    return sorted(root / found for found in glob.glob(name, root_dir=root, recursive=True))
