"""Reading the frames of a trajectory one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
from ase import Atoms

from dpa2calc.errors import DataError, MissingDependencyError
from dpa2calc.files.structures import about_folder, frame_slice, iread_structures
from dpa2calc.progress import progress_bar
from dpa2calc.structures.given import as_atoms


class Frames:
    """The chosen frames of a trajectory, read one at a time and never held in memory together.

    Args:
        source: a file that ASE reads (also compressed: .xz, .gz, .bz2, .zst), one Atoms, a list of Atoms,
            an iterator of Atoms, or another Frames. pymatgen's structures are taken in place of Atoms.
        start, stop, step: which frames, as in a slice; negative values count from the end and need
            a file or a list.

    Example:
        >>> frames = Frames("md.traj", start=1000, step=10)   # skip the equilibration, thin out
        >>> rdf = radial_distribution(frames, "O-O")

    Raises:
        DataError: no such file, a frame that cannot be read, no frame left by the slice, or a
            non-finite position or cell; the message names file and frame.
    """

    def __init__(
        self,
        source: TrajectoryLike,
        *,
        start: int | None = None,
        stop: int | None = None,
        step: int | None = None,
    ) -> None:
        if step is not None and step < 1:
            raise DataError(f"step = {step}, but frames are read forwards; give step >= 1")
        source = as_atoms(source)
        if isinstance(source, Frames) and start is stop is step is None:
            index, source = source.index, source.source
            start, stop, step = index.start, index.stop, index.step
        if isinstance(source, Atoms):
            source = [source]
        if isinstance(source, (str, os.PathLike)):
            # not pathlib's, which raise OSError for names that are too long
            if os.path.isdir(source):
                raise DataError(about_folder(Path(source)))
            if not os.path.isfile(source):
                raise DataError(f"there is no trajectory file {str(source)[:200]}")
        elif isinstance(source, (bytes, Mapping, np.ndarray)) or not isinstance(source, (Frames, Iterable)):
            raise DataError(
                f"a trajectory cannot be a {type(source).__name__}; give a file, Atoms, a list or Frames"
            )
        self.source: str | os.PathLike[str] | Iterable[Atoms] = source
        self.index: slice = frame_slice(slice(start, stop, step))
        self.name = str(source) if isinstance(source, (str, os.PathLike)) else "the trajectory"

    @property
    def repeatable(self) -> bool:
        """Whether the frames can be read a second time (a bare iterator is used up by the first)."""
        if isinstance(self.source, Frames):
            return self.source.repeatable
        return not isinstance(self.source, Iterator)

    @property
    def count(self) -> int | None:
        """Number of frames where it is known without reading, else None."""
        if isinstance(self.source, Sequence) and not isinstance(self.source, str):
            return len(range(*self.index.indices(len(self.source))))
        return None

    def first(self) -> Atoms:
        """The first chosen frame; needs repeatable frames."""
        if not self.repeatable:
            raise DataError(
                f"{self.name} is an iterator, which can be read only once, but this analysis reads it twice; "
                "pass a file or a list of Atoms"
            )
        return next(iter(self))

    def __iter__(self) -> Iterator[Atoms]:
        from_file = isinstance(self.source, (str, os.PathLike))
        iterator: Iterator[Atoms] | None = None
        number = 0
        while True:
            try:
                iterator = iterator or self._open()
                atoms = as_atoms(next(iterator))
            except StopIteration:
                break
            except MissingDependencyError:
                raise
            except Exception as error:
                if not from_file:
                    raise
                way = f"cut the file there, or choose stop={number}" if number else "give another file"
                raise DataError(
                    f"{self.name}: frame {number} of the selection cannot be read ({error}); {number} frames "
                    f"before it are good: {way}"
                ) from error
            if not isinstance(atoms, Atoms):
                raise DataError(f"{self.name}: frame {number} is a {type(atoms).__name__}, not ase.Atoms")
            if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
                raise DataError(f"{self.name}: frame {number} has a position or cell that is NaN or infinite")
            yield atoms
            number += 1
        if number == 0:
            raise DataError(f"{self.name} has no frame in {self.index}; check start, stop and step")

    def _open(self) -> Iterator[Atoms]:
        if isinstance(self.source, (str, os.PathLike)):
            return iread_structures(self.source, self.index)
        if isinstance(self.source, Sequence):
            return iter(self.source[self.index])
        bounds = (self.index.start, self.index.stop)
        if any(bound is not None and bound < 0 for bound in bounds):
            raise DataError(
                f"start, stop = {bounds} count from the end, which an iterator does not know; "
                "pass a file or a list of Atoms"
            )
        return islice(iter(self.source), self.index.start, self.index.stop, self.index.step)


TrajectoryLike: TypeAlias = str | os.PathLike[str] | Atoms | Iterable[Atoms] | Frames


def with_progress(frames: Frames, label: str, progress: bool) -> Iterator[Atoms]:
    """Walk over the frames with a bar on stderr."""
    return iter(
        progress_bar(frames, desc=label, total=frames.count, unit="frame", shown=progress, mininterval=1.0)
    )
