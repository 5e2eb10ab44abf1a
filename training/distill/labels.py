"""The teacher's labels of the start frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ase import Atoms
from ase.calculators.calculator import Calculator

from dpa2calc.errors import DataError
from dpa2calc.progress import progress_bar
from dpa2calc.training.data.readers.frame_file import FrameFile
from dpa2calc.training.exploration.frames import is_sound
from dpa2calc.training.exploration.sampling import fresh_label
from dpa2calc.training.exploration.structures import structures_digest

from .config import DistillConfig


def label_start(
    path: Path, structures: Sequence[Atoms], teacher: Calculator, config: DistillConfig, *, progress: bool
) -> None:
    """The teacher's energies and forces of the start frames, one by one, also after a kill, into `path`.

    Frames that no model should learn (overlapping atoms, huge forces) are left out with a warning.

    Raises:
        DataError: the teacher fails on a frame, or none is left.
    """
    file = FrameFile(path)
    mark = structures_digest(structures)
    # without a frame to learn from it begins again, with its warnings, as limits may have changed
    if file.note.get("structures", mark) != mark or not file.note["frames"]:
        file.restart()
    if not file.finished:
        done = file.note.get("done", 0)
        rest = progress_bar(structures[done:], desc="labelling", unit="frame", shown=progress)
        for atoms in rest:
            done += 1
            frame = _label(atoms, teacher, done)
            sound = is_sound(frame, config, f"start frame {done}")
            file.append(frame if sound else None, structures=mark, done=done)
        file.finish(structures=mark, done=done)
    if not file.note["frames"]:
        raise DataError("no start frame is fit to learn from; the warnings above say why")


def check_teacher(teacher: Calculator, labelled: Iterable[Atoms], structures: Iterable[Atoms]) -> None:
    """Raise a DataError, before any training, where the teacher fails on elements that no start frame has."""
    known = {frozenset(atoms.numbers) for atoms in labelled}
    for atoms in structures:
        if (elements := frozenset(atoms.numbers)) not in known:
            known.add(elements)
            try:
                fresh_label(atoms, teacher)
            except Exception as error:  # a calculator may raise anything
                raise DataError(f"the teacher fails on md.structures ({atoms.symbols}): {error}") from error


def _label(atoms: Atoms, teacher: Calculator, number: int) -> Atoms:
    try:
        return fresh_label(atoms, teacher, group="start", distill_round=0)
    except Exception as error:  # a calculator may raise anything
        raise DataError(f"the teacher fails on start frame {number} ({atoms.symbols}): {error}") from error
