"""All frames that a student learns from: the start frames, and what each round adds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.errors import DataError
from dpa2calc.progress import progress_bar
from dpa2calc.training.data.checks.report import mark_checked
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers.frame_file import FrameFile, read_frames, write_frames

from .config import DistillConfig
from .sampling import fresh_label, unsound
from .setup import structures_digest

logger = logging.getLogger(__name__)


class LabelledFrames:
    """The folder `labelled/`: `start.extxyz`, then `round-NN.extxyz` for each round."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name

    def label_start(
        self, structures: Sequence[Atoms], teacher: Calculator, config: DistillConfig, *, progress: bool
    ) -> None:
        """The teacher's energies and forces of the start frames, one by one, also after a kill.

        Frames that no model should learn (overlapping atoms, huge forces) are left out with a warning.

        Raises:
            DataError: the teacher fails on a frame, or none is left.
        """
        file = FrameFile(self.folder / "start.extxyz")
        mark = structures_digest(structures)
        if file.note.get("structures", mark) != mark:
            file.restart()
        if not file.finished:
            done = file.note.get("done", 0)
            rest = progress_bar(structures[done:], desc="labelling", unit="frame", shown=progress)
            for atoms in rest:
                done += 1
                file.append(_sound_label(atoms, teacher, config, done), structures=mark, done=done)
            file.finish(structures=mark, done=done)
        if not file.note["frames"]:
            raise DataError("no start frame is fit to learn from; the warnings above say why")

    def files(self, rounds: int) -> list[Path]:
        """The start frames and the additions of this many rounds."""
        added = (self.folder / f"round-{n:02d}.extxyz" for n in range(1, rounds + 1))
        return [self.folder / "start.extxyz", *added]

    def dataset(self, rounds: int) -> Dataset:
        """All frames of `files`."""
        filled = [path for path in self.files(rounds) if path.stat().st_size]
        data = Dataset.read(filled, name=self.name)
        mark_checked(data)  # by `unsound`, before they were kept
        return data

    def add(self, number: int, frames: Sequence[Atoms]) -> None:
        """Keep what a round adds, perhaps nothing."""
        write_frames(self.files(number)[-1], frames)

    def added(self, number: int) -> list[Atoms]:
        """What a round added."""
        return read_frames(self.files(number)[-1])


def _sound_label(atoms: Atoms, teacher: Calculator, config: DistillConfig, number: int) -> Atoms | None:
    try:
        frame = fresh_label(atoms, teacher, group="start", distill_round=0)
    except Exception as error:  # a calculator may raise anything
        raise DataError(f"the teacher fails on start frame {number} ({atoms.symbols}): {error}") from error
    reason = unsound(frame, config)
    if reason:
        logger.warning("start frame %d (%s) is left out: %s", number, atoms.symbols, reason)
    return None if reason else frame
