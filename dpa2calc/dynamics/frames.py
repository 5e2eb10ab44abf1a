"""The trajectory of a run: frames are appended, and the file can be cut back to a given frame."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TextIO

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixCom
from ase.io.trajectory import Trajectory

from dpa2calc.errors import ConfigError, DataError, OutputError
from dpa2calc.files.atomic import writing
from dpa2calc.files.identity import digest, text_digest
from dpa2calc.structures.attached import drop_labels
from dpa2calc.structures.given import as_energy

from .files import GrowingFile, Mark, PathLike, check_size, open_text


def make_frame(atoms: Atoms, step: int, timestep_fs: float) -> Atoms:
    """A copy of the atoms with the results at hand (energy, forces, stress), step and time.

    Labels that the atoms carried before they moved are not those of the frame.
    """
    frame = atoms.copy()
    drop_labels(frame)
    frame.set_constraint([item for item in frame.constraints if not isinstance(item, FixCom)])
    found = {name: atoms.calc.results.get(name) for name in ("energy", "forces", "stress")}
    frame.calc = SinglePointCalculator(frame, **{k: np.copy(v) for k, v in found.items() if v is not None})
    if "energy" in frame.calc.results:
        frame.calc.results["energy"] = as_energy(frame.calc.results["energy"])
    frame.info.update(step=step, time_fs=step * timestep_fs)
    return frame


def extxyz_text(frame: Atoms) -> str:
    """A frame as extended XYZ; names in `info` that are no text (which ASE does not write) are made one."""
    named, text = frame.copy(), io.StringIO()
    named.calc, named.info = frame.calc, {str(name): value for name, value in frame.info.items()}
    ase.io.write(text, named, format="extxyz")
    return text.getvalue()


class FrameWriter(GrowingFile):
    """Append frames to a `.traj` or `.extxyz` file.

    `.traj` keeps every bit; `.extxyz` is text with eight decimals. Positions are never wrapped.
    """

    def __init__(self, path: PathLike) -> None:
        super().__init__(path)
        if self.path.suffix not in (".traj", ".extxyz", ".xyz"):
            raise ConfigError(
                f"trajectory is {self.path.name!r}; its name must end in .traj (binary) or .extxyz (text)"
            )
        self.binary = self.path.suffix == ".traj"
        self.count = 0
        self._last = ""  # a hash of the last frame
        self._new = False

    def _handle(self) -> TextIO:
        return self._writer.backend.fd if self.binary else self._writer

    def open(self, keep: Mark | None, *, numbers: np.ndarray | None = None, step: int = 0) -> None:
        """Start a new file, or cut an existing one back to the mark `keep` and append to it.

        Args:
            numbers: (n_atoms,) atomic numbers, step: number of the last step that a frame up to the mark
                holds; both must be found there.

        Raises:
            DataError: the file is shorter than the mark, damaged, or another one.
            OutputError: it cannot be written.
        """
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        if keep is None or not keep["frames"]:
            self._start("w")
            return
        assert numbers is not None
        self.count = keep["frames"]
        frame, self._last = self._kept(keep, len(numbers))
        other = keep.get("last", self._last) != self._last
        if other or not np.array_equal(frame.numbers, numbers) or frame.info.get("step") != step:
            raise DataError(
                f"{self.path} is not the trajectory that the restart file was written with: its frame "
                f"{self.count} is {frame.get_chemical_formula()} of step {frame.info.get('step')}; put the "
                "file back, or delete the restart file to start afresh"
            )
        with writing(self.path):
            _cut_ulm(self.path, self.count) if self.binary else os.truncate(self.path, keep["bytes"])
        self._start("a")

    def open_after(self) -> None:
        """Continue after the last whole frame of an existing file; what a kill left of another is dropped.

        Raises:
            DataError, OutputError: the file is damaged, or cannot be written.
        """
        if not self.binary:
            with writing(self.path):
                os.truncate(self.path, _end_of_frames(self.path)[1])
        self._start("a")

    def ends(self) -> tuple[Atoms, Atoms] | None:
        """The first and the last whole frame of an existing file; None where nothing was written yet.

        Raises:
            DataError: the file is damaged, or something else.
        """
        try:
            if not self.path.stat().st_size:
                return None
            if self.binary:
                with Trajectory(self.path) as frames:
                    return (_usable(frames[0]), _usable(frames[-1])) if len(frames) else None
            last, end = _end_of_frames(self.path)
            if not end:
                raise ValueError("no whole frame")
            with open(self.path, "rb") as handle:
                handle.seek(last)
                text = handle.read(end - last).decode("utf-8")
            first = _usable(ase.io.read(self.path, index=0, format="extxyz", do_not_split_by_at_sign=True))
            return first, _usable(ase.io.read(io.StringIO(text), format="extxyz"))
        except Exception as error:  # whatever ASE's readers raise
            raise DataError(
                f"{self.path} is no trajectory, or is damaged ({type(error).__name__}: {error}); "
                "give another name, or overwrite=True to replace it"
            ) from error

    def _start(self, mode: str) -> None:
        self._new = mode == "w"
        with writing(self.path):
            try:
                self._writer = Trajectory(self.path, mode) if self.binary else open_text(self.path, mode)
            except OSError:
                raise
            except Exception as error:  # ASE reads the first frame of a file that it appends to
                raise DataError(f"{self.path} is damaged ({error}); put the file back") from error

    def _kept(self, keep: Mark, n_atoms: int) -> tuple[Atoms, str]:
        """The last frame before a mark, and its hash."""
        check_size(self.path, keep["bytes"], f"{keep['frames']} frames")
        try:
            if self.binary:
                with Trajectory(self.path) as frames:
                    frame = _usable(frames[keep["frames"] - 1])
                return frame, digest(frame.positions)
            text = _last_lines(self.path, keep["bytes"], n_atoms + 2)
            return _usable(ase.io.read(io.StringIO(text), format="extxyz")), text_digest(text)
        except Exception as error:  # whatever ASE's readers raise
            raise DataError(
                f"{self.path} is damaged: its frame {keep['frames']} cannot be read ({type(error).__name__}: "
                f"{error}); put the file back, or delete the restart file to start afresh"
            ) from error

    def write(self, frame: Atoms) -> None:
        """Append one frame.

        Raises:
            OutputError: full disk.
        """
        try:
            with writing(self.path):
                if self.binary:
                    self._writer.write(frame)
                    self._last = digest(frame.positions)
                else:
                    text = extxyz_text(frame)
                    self._writer.write(text)
                    self._writer.flush()
                    self._last = text_digest(text)
        except OutputError:
            self._abandon()
            raise
        self.count += 1

    def mark(self) -> Mark:
        """Where the file stands now, everything written so far being with the operating system."""
        with writing(self.path):
            size = self.path.stat().st_size
        return {"name": self.path.name, "frames": self.count, "bytes": size, "last": self._last}

    def _abandon(self) -> None:
        """Close without writing what is left: half a frame. A file without a whole frame is no use."""
        with contextlib.suppress(OSError):
            self._handle().close()
        self._writer = None
        if not self.count and self._new:
            with contextlib.suppress(OSError):
                self.path.unlink()


def _usable(frame: Atoms | list[Atoms]) -> Atoms:
    """The frame; raises whatever it raises where its elements, positions or cell are none."""
    assert isinstance(frame, Atoms)
    frame.get_chemical_formula()
    if not (np.isfinite(frame.positions).all() and np.isfinite(frame.cell.array).all()):
        raise ValueError("NaN in its positions or cell")
    return frame


def _last_lines(path: Path, end: int, n_lines: int) -> str:
    """The last lines of the first `end` bytes of a text file."""
    size, found = 4096, b""
    with open(path, "rb") as handle:
        while found.count(b"\n") <= n_lines and len(found) < end:
            size *= 4
            handle.seek(max(0, end - size))
            found = handle.read(end - handle.tell())
    if not found.endswith(b"\n"):
        raise ValueError("a line is cut")
    return "".join(line + "\n" for line in found.decode("utf-8").split("\n")[-n_lines - 1 : -1])


def _cut_ulm(path: Path, frames: int) -> None:
    """Make an ASE `.traj` file forget its frames from number `frames` on.

    The number of items is the 64-bit integer at byte 32 of ASE's ulm files; the data of dropped
    frames stays behind as dead bytes.
    """
    with open(path, "r+b") as handle:
        handle.seek(32)
        handle.write(np.array(frames, "<i8").tobytes())


def _end_of_frames(path: Path) -> tuple[int, int]:
    """Where the last whole frame of an extxyz file begins and ends, in bytes; (0, 0) without one."""
    last = end = 0
    with open(path, "rb") as handle:
        while True:
            line, left = handle.readline(), 0
            with contextlib.suppress(ValueError):
                left = int(line) + 1  # lines after the number of atoms
            if left < 2:  # the end, or no number of atoms
                return last, end
            while left and (line := handle.readline()).endswith(b"\n"):
                left -= 1
            if left:
                return last, end
            last, end = end, handle.tell()
