"""Labels that were paid for: one file each, kept whatever becomes of the loop, and never asked for twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.identity import Part, calculator_identity, digest, read_digest, text_digest
from dpa2calc.files.typed import shown
from dpa2calc.progress import progress_bar
from dpa2calc.structures.attached import bare
from dpa2calc.training.data.readers.frame_file import read_frames, write_frames
from dpa2calc.training.exploration.sampling import fresh_label

logger = logging.getLogger(__name__)
Keep = Callable[[str, Atoms], None]  # name of a structure, structure with its labels


class Waiting(Exception):
    """Labels are still being made elsewhere; the text says how many, and where."""


@runtime_checkable
class LabelSource(Protocol):
    """Who labels."""

    name: str

    def identity(self) -> Part:
        """What tells its labels from those of another source."""

    def label(self, wanted: dict[str, Atoms], keep: Keep, *, progress: bool) -> None:
        """Label structures, by their names, and keep each as soon as it is there.

        Raises:
            Waiting: some are being made elsewhere.
        """


class CalculatorLabels:
    """Labels of an ASE calculator, made here and now; a frame on which it fails is left out."""

    def __init__(self, calculator: Calculator):
        self.calculator, self.name = calculator, type(calculator).__name__

    def identity(self) -> Part:
        """Class and parameters, or what the calculator says of itself."""
        return calculator_identity(self.calculator)

    def label(self, wanted: dict[str, Atoms], keep: Keep, *, progress: bool) -> None:
        """One after the other.

        Raises:
            DataError: the calculator fails on every frame.
        """
        failed = 0
        bar = progress_bar(wanted.items(), desc="labelling", unit="frame", shown=progress)
        for key, atoms in bar:
            try:
                frame = fresh_label(atoms, self.calculator)
            except Exception as error:  # a calculator may raise anything
                failed += 1
                logger.warning(
                    "%s fails on a frame (%s), which is left out: %s", self.name, atoms.symbols, error
                )
                last = error
                continue
            keep(key, frame)
        if failed and failed == len(wanted):
            raise DataError(f"{self.name} fails on all {failed} frames that were to be labelled: {last}")


def label_source(label: object) -> LabelSource:
    """A calculator or a queue as a source of labels; a ConfigError for anything else."""
    if isinstance(label, LabelSource):
        return label
    if isinstance(label, BaseCalculator):
        return CalculatorLabels(cast(Calculator, label))
    raise ConfigError(
        f"label = {shown(label)} is not allowed; allowed: an ASE calculator, the name of a folder, "
        "or a LabelQueue"
    )


def earlier_identity(source: LabelSource) -> Part | None:
    """What an earlier version took for the identity of a source, where that was another one."""
    told = getattr(source, "earlier_identity", None)
    return None if told is None else told()


def structure_key(atoms: Atoms) -> str:
    """A name for a structure, the same after it was written with 8 decimals."""
    # first as files hold it: a number just below a half would be rounded up after it was written
    arrays = (np.round(np.round(values, 8), 6) + 0.0 for values in (atoms.positions, atoms.cell.array))
    read = np.frombuffer(read_digest(atoms), dtype=np.uint8)
    kinds = np.asarray(atoms.numbers, dtype=np.int64), *arrays, np.asarray(atoms.pbc, dtype=bool)
    return digest(*kinds, *([read] if len(read) else []))


class LabelStore:
    """The folder `labels/`: a file for each label that was asked for, and what the user knew before.

    Args:
        known: frames with energy and forces that the same source labelled before; they cost nothing.
    """

    def __init__(self, folder: Path, source: LabelSource, known: Iterable[Atoms] = ()):
        self.folder, self.source = folder, source
        self.mark = text_digest(source.identity())
        earlier = earlier_identity(source)
        self.marks = {self.mark, *([text_digest(earlier)] if earlier else [])}
        self.known = {structure_key(atoms): atoms for atoms in known}

    @property
    def spent(self) -> int:
        """Labels that were asked for and received."""
        return len(list(self.folder.glob("*.extxyz")))

    def lacking(self, frames: Sequence[Atoms]) -> dict[str, Atoms]:
        """The structures without a label, by name, each once."""
        named = {structure_key(atoms): bare(atoms) for atoms in frames}
        return {
            key: atoms
            for key, atoms in named.items()
            if key not in self.known and not self._file(key).exists()
        }

    def label(self, frames: Sequence[Atoms], *, progress: bool, **info: object) -> list[Atoms]:
        """The frames with their labels, in order; those that the source could not label are missing.

        Raises:
            Waiting: some labels are being made elsewhere. DataError: a label's file is damaged.
        """
        wanted = self.lacking(frames)
        if wanted:
            self.source.label(wanted, self._keep, progress=progress)
        found = [self._read(structure_key(atoms)) for atoms in frames]
        for frame in found:
            if frame is not None:
                frame.info.update(info)
        return [frame for frame in found if frame is not None]

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.extxyz"

    def _keep(self, key: str, frame: Atoms) -> None:
        frame.info.update(labelled_by=self.source.name, label_identity=self.mark)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_frames(self._file(key), [frame])

    def _read(self, key: str) -> Atoms | None:
        if key in self.known:
            return self.known[key]
        path = self._file(key)
        frames = read_frames(path) if path.exists() else []
        if frames and frames[0].info.get("label_identity") not in self.marks:
            raise DataError(
                f"{path} has a label of another source; remove it to have the frame labelled again"
            )
        return frames[0] if frames else None
