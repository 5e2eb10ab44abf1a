"""Labels that are made elsewhere, in hours: a folder for each frame, with inputs, and later with results."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, get_args

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.cp2k import parse_input
from ase.calculators.singlepoint import SinglePointCalculator
from ase.geometry import find_mic
from ase.stress import full_3x3_to_voigt_6_stress

from dpa2calc.errors import ConfigError, DataError, MissingDependencyError, optional_library
from dpa2calc.files.atomic import write_text, writing
from dpa2calc.files.identity import Part, text_digest
from dpa2calc.files.typed import shown
from dpa2calc.structures.attached import bare
from dpa2calc.structures.lattice import is_crystal
from dpa2calc.training.data.frame import Frame, frame_from_atoms
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.data.readers.converged import iread_converged
from dpa2calc.training.data.readers.frame_file import write_frames

from .labels import Keep, Waiting

Program = Literal["extxyz", "vasp", "espresso", "cp2k", "abacus"]
FRAME, SKIP = "frame.extxyz", "skip"
RESULTS = ("result.extxyz", "vasprun.xml", "OUTCAR", "*.pwo", "*.out", "*.log")
SAME = 0.01  # Å; a result whose atoms are farther away belongs to another structure
_SCRIPTS = (".sh", ".bash", ".csh", ".slurm", ".sbatch", ".pbs", ".lsf", ".sge", ".qsub")  # of shells
_SHELL = re.compile(rb"#!.*\b(ba|da|k|z|c|tc)?sh\b")
_DPDATA = {"cp2k": "cp2k/output", "abacus": "abacus/scf"}


@dataclass(frozen=True, kw_only=True)
class QueueOptions:
    """What is written for a program: keys of `[label]` beside `queue`."""

    program: Annotated[Program, "whose input is written: extxyz (none), vasp, espresso, cp2k or abacus"] = (
        "extxyz"
    )
    template: Annotated[str, "folder whose files are copied beside each frame: settings, job script"] = ""
    options: Annotated[dict[str, object], "of ASE's writer, such as pseudopotentials and input_data"] = field(
        default_factory=dict
    )


class LabelQueue:
    """A folder with a folder for each frame that is to be labelled.

    Each holds `frame.extxyz`, the files of `template`, and the program's input. The frame is labelled once a
    result is there that ASE reads: `result.extxyz`, `vasprun.xml`, `OUTCAR`, `*.pwo`, `*.out`, `*.log` (CP2K
    and ABACUS: by dpdata). A file `skip` beside it gives the frame up.

    Args:
        folder: it may be that of several runs with the same settings.
        program: "vasp" writes POSCAR, atoms sorted by element, so POTCAR is in alphabetical order;
            "espresso" writes espresso.pwi; "cp2k" puts atoms and cell into the template's cp2k.inp;
            "abacus" writes STRU (with dpdata).
        template: a folder. Another setting in it makes other labels; another job script does not.
        options: of ASE's writer (espresso: `input_data`, `pseudopotentials`, `kpts`) or dpdata's (abacus).

    Raises:
        ConfigError: an unknown program, no such template, or one without cp2k.inp for CP2K.
    """

    name: ClassVar[str] = "queue"

    def __init__(
        self,
        folder: PathLike,
        program: Program = "extxyz",
        *,
        template: PathLike = "",
        options: Mapping[str, object] | None = None,
    ):
        self.folder, self.program = Path(folder), program
        self.template = Path(template) if str(template) else None
        self.options: dict[str, Any] = dict(options or {})
        if program not in get_args(Program):
            raise ConfigError(
                f"program = {shown(program)} is not allowed; allowed: {', '.join(get_args(Program))}"
            )
        if self.template is not None and not self.template.is_dir():
            raise ConfigError(f"template = {str(template)!r} is no folder; name the folder of the settings")
        if program == "cp2k" and not (self.template and (self.template / "cp2k.inp").is_file()):
            raise ConfigError(
                "program = 'cp2k' needs a template with a file cp2k.inp, without atoms and cell"
            )

    def identity(self) -> Part:
        """Program, options and what of the template decides numbers; the folder may move."""
        return self._identity(lambda file: _deciding(file, needed=self.program == "extxyz"))

    def earlier_identity(self) -> Part:
        """What earlier versions took for it: the job script to the last letter."""
        return self._identity(Path.read_bytes)

    def _identity(self, content: Callable[[Path], bytes | None]) -> Part:
        files = sorted(p for p in self.template.iterdir() if p.is_file()) if self.template else []
        found = {p.name: content(p) for p in files}
        counting = {name: text for name, text in found.items() if text is not None}
        texts: Part = {f"template {name}": text_digest(text.hex()) for name, text in counting.items()}
        return {"class": "LabelQueue", "program": self.program, "options": text_digest(self.options), **texts}

    def label(self, wanted: dict[str, Atoms], keep: Keep, *, progress: bool) -> None:
        """Write what is not there, and take the results that are.

        Raises:
            Waiting: some results are missing. DataError: a result belongs to another structure.
            ConfigError: the program needs a cell, which a frame lacks.
        """
        waiting, notes = 0, []
        for key, atoms in wanted.items():
            place = self.folder / key
            if not (place / FRAME).exists():
                self._write(place, atoms)
            if (place / SKIP).exists():
                continue
            found, why = self._result(place)
            if found is None:
                waiting += 1
                notes += [f"{place.name}: {why}"] if why else []
            else:
                keep(key, _as_asked(atoms, found, place))
        if waiting:
            more = "".join(f"\n  {note}" for note in notes[:5])
            raise Waiting(
                f"{waiting} of {len(wanted)} frames wait for labels in {self.folder}; run the calculations "
                f"there, then run the same again (a file named {SKIP} beside a frame gives it up){more}"
            )

    # --- writing --------------------------------------------------------------------------------

    def _write(self, place: Path, atoms: Atoms) -> None:
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
            for file in self.template.iterdir() if self.template else ():
                if file.is_file():
                    shutil.copy(file, place)
            if self.program in ("vasp", "espresso", "abacus") and atoms.cell.rank < 3:
                raise ConfigError(
                    f"program = {self.program!r} needs a cell, but {atoms.symbols} has none; give the start "
                    "structures a box, atoms.center(vacuum=6)"
                )
            if self.program == "vasp":
                ase.io.write(place / "POSCAR", atoms, format="vasp", sort=True, **self.options)
            elif self.program == "espresso":
                data = {"tprnfor": True, "tstress": is_crystal(atoms), **self.options.get("input_data", {})}
                options = {**self.options, "input_data": data}
                ase.io.write(place / "espresso.pwi", atoms, format="espresso-in", **options)
            elif self.program == "cp2k":
                write_text(
                    place / "cp2k.inp", _cp2k_input((place / "cp2k.inp").read_text(encoding="utf-8"), atoms)
                )
            elif self.program == "abacus":
                system = _dpdata().System(atoms, fmt="ase/structure")
                system.to("abacus/stru", str(place / "STRU"), **self.options)
            write_frames(place / FRAME, [atoms])  # last: with it the folder counts

    # --- reading --------------------------------------------------------------------------------

    def _result(self, place: Path) -> tuple[Frame | None, str]:
        """The labelled structure in a folder, or why there is none though there are files ("" without)."""
        reasons = []
        for read, path in self._readers(place):
            try:
                found = frame_from_atoms(read(path))
                if found.energy is None or found.forces is None:
                    lacking = [kind for kind in ("energy", "forces") if kind in found.lacking]
                    reasons.append(f"{path.name} has no {' and no '.join(lacking)} (yet)")
                elif np.isfinite(found.energy) and np.isfinite(found.forces).all():
                    return found, ""
                else:
                    reasons.append(f"{path.name}: energy or forces are not finite")
            except MissingDependencyError:
                raise
            except DataError as error:
                reasons.append(str(error).replace(f"{path}", path.name))
            except Exception as error:  # a file that is still being written, or of another kind
                reasons.append(f"{path.name} cannot be read ({type(error).__name__}: {error})")
        return None, reasons[0] if reasons else ""

    def _readers(self, place: Path) -> Iterator[tuple[Callable[[Path], Atoms], Path]]:
        for pattern in RESULTS:
            for path in sorted(place.glob(pattern)):
                needs_dpdata = self.program == "cp2k" and path.suffix in (".out", ".log")
                yield (self._by_dpdata if needs_dpdata else _by_ase), path
        if self.program == "abacus" and list(place.glob("OUT.*/running_scf.log")):
            yield self._by_dpdata, place

    def _by_dpdata(self, path: Path) -> Atoms:
        system = _dpdata().LabeledSystem(str(path), fmt=_DPDATA[self.program])
        if not len(system):
            raise DataError(f"{path} has no frame with energy and forces whose electrons had converged")
        made: Atoms = system.to("ase/structure")[-1]
        return made


def _deciding(file: Path, *, needed: bool) -> bytes | None:
    """What of a template's file decides numbers: of a job script the commands, if anything.

    Comments, which hold a queue's requests too, never do. The commands do where no input is known to be
    read beside them. A script with a here-document may write an input, and counts to the last letter.

    Args:
        needed: no other file is known to be an input.
    """
    content = file.read_bytes()
    first = content.split(b"\n", 1)[0]
    if not (file.suffix in _SCRIPTS or _SHELL.match(first)) or b"<<" in content:
        return content
    lines = (line.strip() for line in content.splitlines())
    return b"\n".join(line for line in lines if line and not line.startswith(b"#")) if needed else None


def _by_ase(path: Path) -> Atoms:
    frames = [atoms for _, atoms in iread_converged(path)]
    if not frames:
        raise DataError(f"{path} has no frame")
    return frames[-1]


def _dpdata() -> ModuleType:
    text = "inputs of ABACUS, and outputs of ABACUS and CP2K, need dpdata: pip install dpdata"
    return optional_library("dpdata", text)


def _cp2k_input(template: str, atoms: Atoms) -> str:
    """A CP2K input with the structure put in, by ASE's tools for such files."""
    root = parse_input(template)
    for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions):
        root.add_keyword("FORCE_EVAL/SUBSYS/COORD", f"{symbol} {x:.12f} {y:.12f} {z:.12f}", unique=False)
    periodic = "".join(axis for axis, on in zip("XYZ", atoms.pbc) if on) or "NONE"
    if atoms.cell.rank == 3:
        root.add_keyword("FORCE_EVAL/SUBSYS/CELL", f"PERIODIC {periodic}")
        for axis, row in zip("ABC", atoms.cell.array):
            root.add_keyword("FORCE_EVAL/SUBSYS/CELL", f"{axis} {row[0]:.12f} {row[1]:.12f} {row[2]:.12f}")
    return "\n".join(root.write()) + "\n"


def _as_asked(atoms: Atoms, found: Frame, place: Path) -> Atoms:
    """The structure that was asked for with the labels of a result, whose atoms may be in another order.

    Raises:
        DataError: the result is of another structure.
    """
    order = _order(atoms, found)
    if order is None:
        raise DataError(
            f"the result in {place} is of another structure than {FRAME}: an atom has moved by more than "
            f"{SAME} Å, or elements differ. Calculate the frame without relaxing it, or remove the result"
        )
    frame = bare(atoms)
    results: dict[str, Any] = {"energy": found.energy, "forces": np.asarray(found.forces)[order]}
    if is_crystal(frame) and found.stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(found.stress)
    frame.calc = SinglePointCalculator(frame, **results)
    return frame


def _order(atoms: Atoms, found: Frame) -> np.ndarray | None:
    """Which atom of `found` each atom is, or None."""
    if sorted(atoms.numbers) != sorted(found.numbers):
        return None
    if np.abs(atoms.cell.array - found.cell)[atoms.pbc].max(initial=0.0) > SAME:  # of a slab, its sides
        return None
    # Plane-wave programs are periodic in every direction of a box, and put what has left it back inside.
    cell, pbc = atoms.cell.array, atoms.pbc | (atoms.cell.rank == 3)
    if found.pbc.any():
        cell, pbc = found.cell, found.pbc
    order = np.full(len(atoms), -1)
    for number in np.unique(atoms.numbers):
        own, other = np.flatnonzero(atoms.numbers == number), np.flatnonzero(found.numbers == number)
        vectors = found.positions[other][None] - atoms.positions[own][:, None]
        lengths = find_mic(vectors.reshape(-1, 3), cell, pbc)[1].reshape(len(own), len(other))
        if lengths.min(axis=1).max() > SAME:
            return None
        order[own] = other[lengths.argmin(axis=1)]
    return order if len(set(order.tolist())) == len(atoms) else None
