"""What is looked at before data are trained on: a report, and a way to drop what is wrong, never silently."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from ase.data import chemical_symbols
from ase.units import GPa

from dpa2calc.errors import DataError, StructureError
from dpa2calc.files.results import ShownBySummary
from dpa2calc.labels.names import asymmetry_tolerance
from dpa2calc.training.data.dataset import Dataset, Frame, require_dataset, spread_frames
from dpa2calc.training.data.element_energies import energy_bias

from .distances import overlap
from .remarks import remarks_on
from .stress_misfit import stress_misfits

logger = logging.getLogger(__name__)
# Errors of this kind stop a run; the others are reported.
BROKEN = "broken structure"
_FATAL = ("not a number", "no atoms", "overlap", "element outside the type map", "zero volume", BROKEN)
_UNUSABLE = ("not a number", "no atoms", "zero volume", BROKEN)  # no number could be made from these
_LABELS = ("energy", "forces", "virial")
_SAMPLED = 1000  # frames in which `check_frames` looks for overlaps
_OUTLIER_SIGMAS = 8.0
# Frames with this finding keep energies and forces when it is dropped.
MISFIT = "stress misfit"
LEFT_OUT = "stress left out"  # when the frame was read; nothing remains to drop


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or odd, with one frame."""

    frame: int
    kind: str
    detail: str
    source: str

    @classmethod
    def of(cls, data: Dataset, place: int, kind: str, detail: str) -> Finding:
        """About the frame at this place of the data."""
        return cls(place, kind, detail, data[place].source or f"frame {place}")

    def __str__(self) -> str:
        return f"{self.source}: {self.kind}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class DataReport(ShownBySummary):
    """What `check_dataset` saw.

    Attributes:
        labels: number of frames with each label. parameters: with fparam, with aparam, if any.
        bias: least-squares energy of each element, eV. residual_std: what the fit leaves, meV/atom.
        force_rms: eV/Å. pressure: smallest and largest -trace(stress)/3, GPa, or None.
        findings: everything that is wrong or odd, by frame.
        remarks: about the whole set.
    """

    name: str
    n_frames: int
    n_atoms: int
    elements: tuple[str, ...]
    labels: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    bias: dict[str, float] = field(default_factory=dict)
    residual_std: float | None = None
    force_rms: float | None = None
    pressure: tuple[float, float] | None = None
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def fatal(self) -> tuple[Finding, ...]:
        """Findings that make training senseless."""
        return tuple(f for f in self.findings if f.kind in _FATAL)

    def frames(self, *kinds: str) -> list[int]:
        """Indices of frames with a finding (of these kinds)."""
        return sorted({f.frame for f in self.findings if not kinds or f.kind in kinds})

    def summary(self) -> str:
        """One screen of text."""
        lines = [f"{self.name}: {self.n_frames} frames, {self.n_atoms} atoms, {' '.join(self.elements)}"]
        for title, numbers in (("labels", self.labels), ("parameters", self.parameters)):
            if numbers or title == "labels":
                lines.append(f"{title}: " + ", ".join(f"{name} on {n}" for name, n in numbers.items()))
        if self.residual_std is not None:
            lines.append(f"energy after the fit by element: std {self.residual_std:.1f} meV/atom")
        if self.force_rms is not None:
            lines.append(f"force rms {self.force_rms:.3f} eV/Å")
        if self.pressure is not None:
            lines.append(f"pressure {self.pressure[0]:.1f} to {self.pressure[1]:.1f} GPa")
        return "\n".join(lines + self.doubts(note="note: "))

    def doubts(self, *, note: str = "") -> list[str]:
        """The remarks, and a line for each kind of finding."""
        lines = [f"{note}{remark}" for remark in self.remarks]
        for kind in sorted({f.kind for f in self.findings}):
            found = [f for f in self.findings if f.kind == kind]
            lines.append(f"{len(found)} x {kind}, for example {found[0].source}: {found[0].detail}")
        return lines


def check_dataset(
    data: Dataset, *, type_map: Iterable[str] | None = None, outlier_sigmas: float = _OUTLIER_SIGMAS
) -> DataReport:
    """Look at every frame: labels, NaN, overlapping atoms, energy outliers, plausible units, stresses.

    Training and evaluation call `check_frames` by themselves, which looks at most of this. Stresses are
    compared with the energies of strained copies (`stress_misfits`).

    Args:
        type_map: elements of the model; others are reported.
        outlier_sigmas: a frame whose energy differs from the fit by element by more than this many robust
            standard deviations is reported as an outlier.
    """
    require_dataset(data, "data")
    allowed = set(type_map) if type_map is not None else None
    findings = _frame_findings(data, range(len(data)), allowed)
    findings += _misfits(data, _bad(findings))
    return _report(data, findings, outlier_sigmas)


def _bad(findings: Iterable[Finding]) -> set[int]:
    return {f.frame for f in findings if f.kind in _FATAL}


def _report(data: Dataset, findings: list[Finding], outlier_sigmas: float) -> DataReport:
    """What sound frames say together, added to what was found in single frames."""
    bad = _bad(findings)
    good = data.subset(i for i in range(len(data)) if i not in bad)
    bias, residual_std = {}, None
    if any(f.energy is not None for f in good):
        values, residual = energy_bias(good, good.elements)
        bias = dict(zip(good.elements, values.tolist()))
        residual_std = 1e3 * float(np.std(residual))
        places = [i for i, f in enumerate(data) if i not in bad and f.energy is not None]
        findings = findings + _outliers(data, places, residual, outlier_sigmas)
    forces = [f.forces.ravel() for f in good if f.forces is not None]
    force_rms = float(np.sqrt(np.mean(np.concatenate(forces) ** 2))) if forces else None
    traces = [-np.trace(f.stress) / 3.0 / GPa for f in good if f.stress is not None]
    parameters = {k: sum(getattr(f, k) is not None for f in data) for k in ("fparam", "aparam")}
    report = DataReport(
        name=data.name,
        n_frames=len(data),
        n_atoms=data.n_atoms,
        elements=data.elements,
        labels=data.labels(),
        parameters={k: n for k, n in parameters.items() if n},
        bias=bias,
        residual_std=residual_std,
        force_rms=force_rms,
        pressure=(min(traces), max(traces)) if traces else None,
        findings=tuple(sorted(findings, key=lambda f: f.frame)),
    )
    return replace(report, remarks=tuple(remarks_on(report, good, data.unread_labels)))


def _frame_findings(data: Dataset, places: Iterable[int], allowed: set[str] | None) -> list[Finding]:
    """What is wrong or odd in single frames; overlaps are sought in those at these places."""
    found = [
        Finding.of(data, place, kind, detail)
        for place, frame in enumerate(data)
        for kind, detail in _seen_in(frame, allowed)
    ]
    bad = _bad(found)
    for place in places:
        frame = data[place]
        try:
            closest = None if place in bad else overlap(frame)
        except StructureError as error:  # no cell where it is periodic, atoms crowded into one place
            found.append(Finding.of(data, place, BROKEN, str(error)))
            continue
        if closest is not None:
            i, j, distance = closest
            pair = f"{chemical_symbols[frame.numbers[i]]}{i} and {chemical_symbols[frame.numbers[j]]}{j}"
            found.append(Finding.of(data, place, "overlap", f"{pair} are {distance:.3f} Å apart"))
    return found


def _seen_in(frame: Frame, allowed: set[str] | None) -> Iterator[tuple[str, str]]:
    """Kind and detail of what is wrong or odd in a frame, but for overlaps."""
    if frame.n_atoms == 0:
        yield "no atoms", "the frame is empty"
        return
    symbols = sorted({chemical_symbols[z] for z in frame.numbers.tolist()})
    new = [s for s in symbols if allowed is not None and s not in allowed]
    if new:
        yield "element outside the type map", ", ".join(new)
    values = {n: getattr(frame, n) for n in ("positions", "cell", *_LABELS, "fparam", "aparam")}
    wrong = [name for name, v in values.items() if v is not None and not np.isfinite(v).all()]
    for name in wrong:
        yield "not a number", f"in the {name}"
    if not wrong and frame.pbc.all() and frame.volume < 1e-6:
        yield "zero volume", "a cell periodic in three directions without a volume"
    elif not wrong:
        if frame.left_out:
            yield LEFT_OUT, frame.left_out
        if frame.asymmetry is not None and frame.virial is not None:
            tolerance = asymmetry_tolerance(frame.virial, frame.n_atoms)
            yield (
                "asymmetric stress",
                f"its virial is {frame.asymmetry:.3g} eV from a symmetric one (tolerance {tolerance:.2g} eV, "
                f"largest component {np.abs(frame.virial).max():.3g} eV); the symmetric part is learned",
            )
        if not frame.labelled:
            yield "no label", "neither energy nor forces nor stress"
        largest = 0.0 if frame.forces is None else float(np.abs(frame.forces).max())
        if largest > 100.0:
            yield "large force", f"{largest:.1f} eV/Å"


def _outliers(data: Dataset, places: list[int], residual: np.ndarray, sigmas: float) -> list[Finding]:
    """Energies far from the fit, against the median absolute deviation."""
    center = float(np.median(residual))
    spread = 1.4826 * float(np.median(np.abs(residual - center)))
    limit = sigmas * max(spread, 1e-3)  # 1 meV/atom: sets of one structure have almost no spread
    return [
        Finding.of(
            data,
            place,
            "energy outlier",
            f"{1e3 * (r - center):+.0f} meV/atom from the fit by element (typical {1e3 * spread:.1f})",
        )
        for place, r in zip(places, residual)
        if abs(r - center) > limit
    ]


def _misfits(data: Dataset, bad: set[int]) -> list[Finding]:
    """A finding for every stress of a group whose stresses contradict its energies."""
    sound = replace(data, frames=tuple(f for i, f in enumerate(data) if i not in bad))
    said = {group: str(m) for m in stress_misfits(sound) for group in m.groups}
    return [
        Finding.of(data, i, MISFIT, said[frame.group])
        for i, frame in enumerate(data)
        if frame.group in said and frame.virial is not None
    ]


def clean(
    data: Dataset,
    report: DataReport | None = None,
    *,
    drop: Iterable[str] = (),
    frames: Iterable[int] = (),
) -> tuple[Dataset, tuple[Finding, ...]]:
    """The set without frames that have findings of the kinds in `drop`, or are named, and why they are gone.

    "stress misfit" takes away the stresses alone; energies and forces of these frames stay.

    Args:
        frames: places in the set, from 0, of frames to leave out whatever the report says of them.

    Raises:
        DataError: no such kind of finding, or no such frame.

    Example:
        >>> data, dropped = clean(data, drop=("energy outlier", "overlap"), frames=(17,))
    """
    report = report or check_dataset(data)
    kinds = set(drop)
    known = {"energy outlier", "large force", "no label", MISFIT, *_FATAL}
    if kinds - known:
        raise DataError(f"unknown findings {sorted(kinds - known)}; known: {', '.join(sorted(known))}")
    named = set(data.places(frames))
    if outside := sorted(i for i in named if i < 0):
        raise DataError(f"{report.name} has frames 0 to {len(data) - 1}; there is no frame {outside[0]}")
    # of a named frame all but a misfit of its stress, which goes with it
    dropped = tuple(f for f in report.findings if (f.kind != MISFIT if f.frame in named else f.kind in kinds))
    silent = sorted(named - {f.frame for f in dropped})
    dropped += tuple(Finding.of(data, i, "named", "left out by its number") for i in silent)
    gone = {f.frame for f in dropped if f.kind != MISFIT}
    bare = {f.frame for f in dropped if f.kind == MISFIT}
    kept = ((i, frame) for i, frame in enumerate(data) if i not in gone)
    frames_left = tuple(replace(frame, virial=None) if i in bare else frame for i, frame in kept)
    return replace(data, frames=frames_left), dropped


def require_sound(report: DataReport, *, kinds: Iterable[str] = _FATAL) -> None:
    """Raise a DataError that names up to five findings of these kinds."""
    fatal = [finding for finding in report.findings if finding.kind in kinds]
    if fatal:
        listed = "; ".join(str(f) for f in fatal[:5])
        more = f" and {len(fatal) - 5} more" if len(fatal) > 5 else ""
        raise DataError(
            f"{report.name} cannot be used as it is: {listed}{more}. Repair the file, or drop these frames: "
            "`drop` or `drop_frames` in a set of a file, clean(data, drop=..., frames=...) in Python"
        )


def check_frames(name: str, data: Dataset) -> None:
    """What training and evaluation do with frames that nobody has looked at yet.

    Each frame is looked at once, whatever set it is handed on in; overlaps are sought in a sample of at
    most `_SAMPLED` frames. Doubtful frames, units and signs are logged in one warning.

    Raises:
        DataError: frames without atoms, with NaN or infinite numbers, or periodic without a volume.
    """
    fresh = replace(data, frames=tuple(frame for frame in data if not frame.checked))
    if not fresh.frames:
        return
    findings = _frame_findings(fresh, spread_frames(fresh, _SAMPLED), None)
    report = replace(_report(fresh, findings, _OUTLIER_SIGMAS), name=name)
    require_sound(report, kinds=_UNUSABLE)
    doubts = report.doubts()
    if doubts:
        logger.warning("%s: %s", name, "; ".join(doubts))
    mark_checked(fresh)


def mark_checked(data: Dataset) -> None:
    """Spare the frames another look by `check_frames`."""
    for frame in data:
        object.__setattr__(frame, "checked", True)
