"""Maps as input files of chemiscope (chemiscope.org): the map beside the structures, linked by clicks.

The format is plain JSON (https://chemiscope.org/docs, "Creating chemiscope input files"), written here
without the chemiscope package: structures, properties of the points, and where each point sits.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from dpa2calc.applications.shared.trajectory import Frames, TrajectoryLike
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.atomic import atomic_path
from dpa2calc.structures.lattice import cell_volume

if TYPE_CHECKING:
    from .representation import RepresentationMap


def write_chemiscope(
    result: RepresentationMap,
    path: str | os.PathLike[str],
    structures: TrajectoryLike | Mapping[str, TrajectoryLike],
    *,
    cutoff: float = 4.0,
    title: str = "Representation map",
) -> Path:
    """Write a map and the structures it was made of as one chemiscope file.

    Args:
        path: ends in .json or .json.gz; open it at chemiscope.org or with the chemiscope package.
        structures: as given to `representation_map`; only frames with a point on the map are written.
        cutoff: radius (Å) of the environment that chemiscope highlights around an atom.
        title: shown above the map.

    Raises:
        ConfigError: a file name of another kind.
        DataError: structures that do not belong to this map.
    """
    target = Path(path)
    if not target.name.endswith((".json", ".json.gz")):
        raise ConfigError(f"{target.name} is not a chemiscope file name; end it in .json or .json.gz")
    frames, index = _frames(result, structures)
    data: dict[str, object] = {
        "meta": {"name": title},
        "structures": [_structure(atoms) for atoms in frames],
        "properties": _properties(result, frames, index),
        "settings": _settings(result),
    }
    if result.level == "atom":
        data["environments"] = [
            {"structure": int(k), "center": int(atom), "cutoff": cutoff}
            for k, atom in zip(index, result.atom)
        ]
    text = json.dumps(data, separators=(",", ":")).encode()
    with atomic_path(target) as temporary:
        # no time stamp and no name in the header, so that equal maps are equal files
        temporary.write_bytes(gzip.compress(text, mtime=0) if target.suffix == ".gz" else text)
    return target


def _frames(
    result: RepresentationMap, structures: TrajectoryLike | Mapping[str, TrajectoryLike]
) -> tuple[list[Atoms], np.ndarray]:
    """The frames that have points, and which of them each point belongs to (n_points,)."""
    groups = structures if isinstance(structures, Mapping) else {"all": structures}
    names = result.labels["group"]
    if set(groups) != set(names):
        raise DataError(
            f"the map has the groups {', '.join(names)}, the structures {', '.join(map(str, groups))}; give "
            "the structures that the map was made of"
        )
    frames: list[Atoms] = []
    index = np.full(len(result.frame), -1)
    for code, name in enumerate(names):
        mine = result.codes["group"] == code
        wanted = set(result.frame[mine].tolist())
        source = groups[name]
        for number, atoms in enumerate(Frames(source)):
            if number in wanted:
                index[mine & (result.frame == number)] = len(frames)
                frames.append(atoms.copy())
    lost = int((index < 0).sum())
    if lost:
        raise DataError(
            f"{lost} points of the map have no frame among the structures; give those it was made of"
        )
    return frames, index


def _structure(atoms: Atoms) -> dict[str, object]:
    record: dict[str, object] = {"size": len(atoms), "names": atoms.get_chemical_symbols()}
    record |= zip("xyz", np.round(atoms.positions.T, 4).tolist())
    if atoms.pbc.any() and cell_volume(atoms) is not None:
        record["cell"] = np.round(atoms.cell.array, 4).ravel().tolist()  # (3, 3) -> 9 numbers, a first
    return record


def _properties(result: RepresentationMap, frames: list[Atoms], index: np.ndarray) -> dict[str, object]:
    """Coordinates and labels of each point; text becomes symbols, so elements also come as numbers."""
    columns: dict[str, Sequence[object]] = {}
    for name, points in (("PCA", result.pca), ("t-SNE", result.tsne)):
        if points is not None:
            for k in range(2):
                columns[f"{name} {k + 1}"] = np.round(points[:, k], 5).tolist()
    for key, names in result.labels.items():
        columns[key] = [names[code] for code in result.codes[key]]
    columns["group number"] = result.codes["group"].tolist()
    if result.level == "atom":
        numbers = [int(frames[k].numbers[atom]) for k, atom in zip(index, result.atom)]
        columns["atomic number"] = numbers
        if [chemical_symbols[number] for number in numbers] != columns["element"]:
            raise DataError(
                "the structures have other elements than the points of this map; give the same ones"
            )
    if result.level == "structure":  # properties of structures come in the order of the structures
        order = np.argsort(index, kind="stable")
        columns = {name: [values[k] for k in order] for name, values in columns.items()}
    # the levels are the words of the format
    return {name: {"target": result.level, "values": values} for name, values in columns.items()}


def _settings(result: RepresentationMap) -> dict[str, object]:
    kind = "PCA" if result.tsne is None else "t-SNE"
    colour = "atomic number" if result.level == "atom" else "group number"
    axes = {"x": f"{kind} 1", "y": f"{kind} 2", "color": colour}
    view: dict[str, object] = {name: {"property": shown} for name, shown in axes.items()}
    if len(result.labels["group"]) > 1:
        view["symbol"] = "group"
    return {"map": view}
