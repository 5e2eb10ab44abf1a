"""All frames that a model learns from: the start frames, and what each round adds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from dpa2calc.training.data.checks.report import mark_checked
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers.frame_file import read_frames, write_frames

from .options import LoopOptions
from .sampling import unsound

logger = logging.getLogger(__name__)


class LabelledFrames:
    """The folder `labelled/`: `start.extxyz`, then `round-NN.extxyz` for each round."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name

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
        """Keep what a round adds, perhaps nothing; the start frames are round 0."""
        write_frames(self.files(number)[-1], frames)

    def added(self, number: int) -> list[Atoms]:
        """What a round added."""
        return read_frames(self.files(number)[-1])


def is_sound(frame: Atoms, config: LoopOptions, what: str) -> bool:
    """Whether a labelled frame may be learned from; a warning, with its name, where not."""
    reason = unsound(frame, config)
    if reason:
        logger.warning("%s (%s) is left out: %s", what, frame.symbols, reason)
    return not reason
