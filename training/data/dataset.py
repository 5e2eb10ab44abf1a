"""Labelled structures in memory: frames, and datasets of frames."""

from __future__ import annotations

import glob
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from operator import index
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.patterns import expanded
from dpa2calc.files.typed import shown, typed
from dpa2calc.labels.names import (
    OWN_NAMES,
    LabelKeys,
    advice,
    stored_label,
    unread_labels,
)
from dpa2calc.structures.given import as_atoms
from dpa2calc.structures.graph_spec import type_table

from .frame import Frame, frame_from_atoms
from .readers import PathLike
from .readers.converged import iread_converged

logger = logging.getLogger(__name__)
_NEW_COMPOSITION = 1e-6  # share of the atoms
_WEIGHT = re.compile(
    r"(config_)?(config|energy|forces?|virials?|stress)_(weights?|sigma|mask)|force_(atom|component)_sigma",
    re.IGNORECASE,
)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Frames labelled with one DFT setting.

    Attributes:
        unread_labels: names like REF_energy in frames without such a label, by kind (energy, forces, stress).

    Example:
        >>> data = Dataset.read("train.extxyz.xz", name="water")
        >>> train, validation = data.split(0.9, seed=1)
    """

    frames: tuple[Frame, ...]
    name: str = "data"
    info: dict[str, object] = field(default_factory=dict)
    unread_labels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        paths: PathLike | Atoms | Iterable[PathLike | Atoms],
        *,
        name: str | None = None,
        keys: LabelKeys = OWN_NAMES,
    ) -> Dataset:
        """Read one file or several, see `iread_converged` for the formats; patterns such as `runs/*.xyz` too.

        Atoms, or structures of pymatgen, in place of files are taken as `from_atoms` does.

        Raises:
            DataError: nothing to read, a damaged file (file and frame are named), or no frame has a label of
                a name that was given.
        """
        several = as_list(paths)
        if not several:
            raise DataError("no file was named; name at least one, or pass Atoms")
        first = next((str(item) for item in several if isinstance(item, (str, os.PathLike))), "data")
        data = cls._labelled(iread_given(several, name or first), name or first, keys)
        if not data.frames:
            raise DataError(f"there are no frames in {', '.join(map(str, several))}")
        return data

    @classmethod
    def from_atoms(
        cls, structures: Iterable[Atoms], *, name: str = "data", keys: LabelKeys = OWN_NAMES
    ) -> Dataset:
        """From ASE Atoms that carry labels (stored calculator results, `info`, `arrays`)."""
        return cls._labelled(((a, f"{name}, frame {i}") for i, a in enumerate(structures)), name, keys)

    @classmethod
    def _labelled(cls, structures: Iterable[tuple[Atoms, str]], name: str, keys: LabelKeys) -> Dataset:
        if not isinstance(keys, LabelKeys):
            raise DataError(f"keys must be LabelKeys(energy=..., forces=...), not {type(keys).__name__}")
        frames: list[Frame] = []
        unread: dict[str, tuple[str, ...]] = {}
        missing, weights = keys.named(), dict[str, None]()
        for given, source in structures:
            atoms = as_atoms(given)
            if not isinstance(atoms, Atoms):
                raise DataError(
                    f"{source}: expected Atoms, got {type(atoms).__name__}; from_atoms takes a list of "
                    "structures, Dataset.read also files"
                )
            frame = frame_from_atoms(atoms, keys=keys, source=source)
            missing = {kind: key for kind, key in missing.items() if stored_label(atoms, key) is None}
            unread |= unread_labels(atoms, keys, [kind for kind in frame.lacking if kind not in unread])
            weights |= dict.fromkeys(_weights(atoms))
            frames.append(frame)
        if weights:
            logger.warning(
                "%s: %s not used: all frames count alike; put what shall count more into a set of "
                "its own with a weight ([sets.NAME] weight = ..., TrainingSet(data, weight=...))",
                name,
                ", ".join(weights) + (" is" if len(weights) == 1 else " are"),
            )
        if missing and frames:
            kind, key = next(iter(missing.items()))
            raise DataError(
                f"{name}: no frame has a label {key!r} ({kind}); {advice(chain(*unread.values()))}"
            )
        return cls(tuple(frames), name, unread_labels=unread)

    def __repr__(self) -> str:
        size = f"{len(self)} frames, {self.n_atoms} atoms, {' '.join(self.elements)}"
        labels = ", ".join(f"{kind} on {n}" for kind, n in self.labels().items())
        return f"<Dataset {self.name}: {size}; {labels}>"

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Frame:
        return self.frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def subset(self, indices: Iterable[int]) -> Dataset:
        """The frames of these indices, in this order; negative ones count from the end.

        Raises:
            DataError: no whole number, such as the entries of a mask, or no such frame.
        """
        return replace(self, frames=tuple(self.frames[i] for i in self.places(indices)))

    def places(self, indices: Iterable[int]) -> list[int]:
        """Indices of frames as whole numbers; for the errors see `subset`."""
        found = []
        for given in indices:
            kind = str(getattr(given, "dtype", type(given).__name__))
            if "bool" in kind or not hasattr(given, "__index__") or "float" in kind:
                raise DataError(
                    f"{self.name}: {shown(given)} is no index of a frame; give whole numbers such as [0, 2], "
                    "and np.flatnonzero(mask) for a mask"
                )
            place = index(given)
            if not -len(self) <= place < len(self):
                raise DataError(f"{self.name} has frames 0 to {len(self) - 1}; there is no frame {place}")
            found.append(place)
        return found

    def sample(self, n: int, *, seed: int = 0) -> Dataset:
        """`n` frames drawn without repetition; the first frames of a larger sample of the same seed."""
        if not 0 <= typed(int, n, "n") <= len(self):
            raise DataError(f"{self.name} has {len(self)} frames, {n} were asked for")
        return self.subset(np.random.default_rng(seed).permutation(len(self))[:n])

    def split(self, fraction: float, *, seed: int = 0, by_group: bool = False) -> tuple[Dataset, Dataset]:
        """Two disjoint parts, the first with about `fraction` of the frames (0 to 1).

        Args:
            by_group: keep frames of the same `group` (a trajectory) together, so that neighbours in
                time do not land on both sides.
        """
        if not 0.0 < typed(float, fraction, "fraction") < 1.0:
            raise DataError(f"fraction = {fraction} is not allowed; allowed: between 0 and 1")
        rng = np.random.default_rng(seed)
        keys = [f.group for f in self.frames] if by_group else [str(i) for i in range(len(self))]
        sizes = Counter(keys)  # in the order in which they first occur
        names = list(sizes)
        order = [names[place] for place in rng.permutation(len(names))]
        enough = np.searchsorted(np.cumsum([sizes[name] for name in order]), fraction * len(self)) + 1
        first = set(order[:enough])
        inside = [i for i, key in enumerate(keys) if key in first]
        outside = [i for i, key in enumerate(keys) if key not in first]
        if not outside or not inside:
            raise DataError(
                f"{self.name} cannot be split at {fraction}: {len(self)} frames, {len(names)} groups; "
                "give more of them, or another fraction or seed"
            )
        return self.subset(inside), self.subset(outside)

    @cached_property
    def elements(self) -> tuple[str, ...]:
        """Chemical symbols that occur, by atomic number."""
        present = {int(z) for frame in self.frames for z in np.unique(frame.numbers)}
        return tuple(chemical_symbols[z] for z in sorted(present))

    def labels(self) -> dict[str, int]:
        """Number of frames with an energy, with forces, with a stress."""
        lacking = [frame.lacking for frame in self.frames]
        return {kind: sum(kind not in m for m in lacking) for kind in ("energy", "forces", "stress")}

    def with_energies(self) -> Dataset:
        """The frames that have an energy."""
        return self.subset([i for i, frame in enumerate(self.frames) if frame.energy is not None])

    @property
    def n_atoms(self) -> int:
        """Atoms in all frames together."""
        return sum(frame.n_atoms for frame in self.frames)

    def compositions(self, type_map: Sequence[str]) -> np.ndarray:
        """Number of atoms of each type in each frame, (n_frames, n_types) float64."""
        table = type_table(type_map)
        counts = [np.bincount(table[f.numbers], minlength=len(type_map)) for f in self.frames]
        return np.array(counts, dtype=np.float64)


def require_dataset(data: object, what: str) -> None:
    """Raise a DataError, with the way to make one, for what is no `Dataset`."""
    if not isinstance(data, Dataset):
        several = "; pretrain takes several sets by name" if isinstance(data, Mapping) else ""
        raise DataError(
            f"{what} must be a Dataset, not {type(data).__name__}: Dataset.read(files) and "
            f"Dataset.from_atoms(structures) make one{several}"
        )


def as_list(given: object) -> list[object]:
    """One file's name or Atoms as a list of one, several as a list; a DataError for what is neither."""
    given = as_atoms(given)
    if isinstance(given, (str, bytes, os.PathLike, Atoms)):
        return [given]
    if not isinstance(given, Iterable):
        raise DataError(f"expected the names of files, or Atoms, got {type(given).__name__}")
    return list(given)


def _weights(atoms: Atoms) -> Iterator[str]:
    """Names of weights that MACE, quippy and others give to frames, where they are not 1."""
    for place in (atoms.info, atoms.arrays):
        for name in filter(_WEIGHT.fullmatch, map(str, place)):
            value = np.asarray(place[name])
            if value.dtype.kind not in "biuf" or (value != 1).any():
                yield name


def iread_given(
    several: Sequence[object],
    name: str,
    read: Callable[[PathLike], Iterator[tuple[int, Atoms]]] = iread_converged,
) -> Iterator[tuple[Atoms, str]]:
    """Structures with their source, from Atoms and files, whose names may be patterns.

    Args:
        name: of the whole, for messages. read: number and structure of the frames of a file.
    """
    for number, item in enumerate(map(as_atoms, several)):
        if isinstance(item, Atoms):
            yield item, f"{name}, frame {number}"
        elif isinstance(item, (str, bytes, os.PathLike)):
            named = os.fsdecode(item)
            files = expanded(named, Path())
            if glob.has_magic(named) and not files:
                raise DataError(f"no file fits the pattern {named}")
            for path in map(str, files) if glob.has_magic(named) else [named]:
                for i, atoms in read(path):
                    yield atoms, f"{path}, frame {i}"
        else:
            raise DataError(f"{name}: expected the names of files, or Atoms, got {type(item).__name__}")


def spread_frames(dataset: Dataset, n: int, *, seed: int = 0) -> list[int]:
    """Indices of at most `n` frames, a random sample without repetition, in order."""
    if len(dataset) <= n:
        return list(range(len(dataset)))
    return sorted(int(i) for i in np.random.default_rng(seed).permutation(len(dataset))[:n])


def spanning_frames(dataset: Dataset, n: int, *, seed: int = 0) -> list[int]:
    """`spread_frames`, and as few more frames as let the compositions span those of the whole set.

    An element that a random sample happens to miss, or one that comes in a single ratio there, would
    otherwise keep an energy that nothing has determined, perhaps of another code.
    """
    chosen = spread_frames(dataset, n, seed=seed)
    if len(chosen) == len(dataset):
        return chosen
    counts = dataset.compositions(dataset.elements)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    _, sizes, rows = np.linalg.svd(fractions[chosen], full_matrices=False)
    known = rows[sizes > _NEW_COMPOSITION]
    left = fractions - fractions @ known.T @ known  # what of each frame those before do not span
    while (lengths := np.linalg.norm(left, axis=1)).max() > _NEW_COMPOSITION:
        place = int(lengths.argmax())
        chosen.append(place)
        direction = left[place] / lengths[place]
        left -= np.outer(left @ direction, direction)
    return sorted(chosen)


def check_set_names(names: Iterable[str], what: str = "set") -> None:
    """Raise a ConfigError for the name of a set or head that no log, figure or file can show."""
    for name in names:
        if not name.strip() or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise ConfigError(
                f"the {what}'s name {shown(name)} is not allowed; allowed: letters, digits and signs, "
                "without line breaks and control characters"
            )
