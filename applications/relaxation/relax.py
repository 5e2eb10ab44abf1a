"""Relax atoms and, if wanted, the cell, with separate limits on forces and stress."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled

from dpa2calc.applications.shared.application import application_writing
from dpa2calc.applications.shared.structures import (
    check_symprec,
    checked_copy,
    need_stress,
    positive,
    quiet_spglib,
)
from dpa2calc.dynamics.frames import FrameWriter, make_frame
from dpa2calc.dynamics.guards import over_uncertainty
from dpa2calc.dynamics.strain import PeriodicStrain, check_partly_periodic
from dpa2calc.dynamics.words import RENAMED, earlier_word
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.identity import Part
from dpa2calc.files.results import provenance
from dpa2calc.files.typed import argument
from dpa2calc.progress import progress_bar
from dpa2calc.structures.attached import attached
from dpa2calc.structures.given import as_energy
from dpa2calc.structures.lattice import is_crystal, volume_or_nan

from .cell_freedom import check_constraints, moves_cell, stress_left
from .relax_result import RelaxResult
from .relax_trajectory import KEY, belongs_to, first_and_last
from .relaxer import Optimizer, Relaxation

Free = Literal["positions", "volume", "axes", "shape", "cell"]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Settings(Relaxation):
    """Options of `relax`, which ends where both forces and stress are below limits of their own."""

    smax_gpa: float
    uncertainty_limit: float | None = None

    def decisive(self) -> Part:
        """The options that a resumed relaxation must keep; limits and optimiser may change on the way."""
        cell = earlier_word(self.free)
        kept = {"cell": cell, "pressure_gpa": float(self.pressure_gpa), "keep_symmetry": self.symmetry}
        return {**kept, "symprec": float(self.symprec)} if self.symmetry else kept


@application_writing("trajectory")
def relax(
    atoms: Atoms,
    *,
    fmax: float = 0.01,
    relax: Free = "positions",
    smax_gpa: float = 0.02,
    pressure_gpa: float = 0.0,
    optimizer: Optimizer = "auto",
    keep_symmetry: bool = False,
    symprec: float = 0.01,
    max_steps: int = 500,
    uncertainty_limit: float | None = None,
    trajectory: PathLike | None = None,
    overwrite: bool = False,
    progress: bool = True,
    cell: str | None = None,
) -> RelaxResult:
    """Find the nearest minimum of the energy (at a pressure: of the enthalpy).

    The cell of a slab, a 2-D crystal or a wire (pbc in one or two directions) changes in its periodic
    directions alone: "volume" is then their area or length, "axes" their lengths, "shape" the shape at
    constant area. Their stress is that of the atoms, not of the vacuum: the cell's stress times its volume
    over that of the layer (extent of the atoms and 3 Å). A pressure needs three periodic directions.

    Args:
        atoms: with a calculator; never changed. Constraints on them are obeyed, but Hookean, ExternalForce
            and fixed bond lengths or internal coordinates only where the cell stays.
        fmax: largest force that may be left on an atom, eV/Å.
        relax: what moves: "positions" alone, or with the cell: its "volume" at constant shape, its "axes"
            (three lengths in x, y, z), its "shape" at constant volume, or the whole "cell".
        smax_gpa: largest deviation of a free stress component from the pressure, GPa.
        pressure_gpa: GPa.
        optimizer: "auto" takes BFGS for up to 200 atoms, else FIRE, which is the sturdiest far from the
            minimum.
        keep_symmetry: keep the space group of the start, found within `symprec` Å (needs spglib).
        max_steps: in all; reaching it is a warning, and `converged` is False.
        uncertainty_limit: eV; reaching an `energies_std` above it ends the relaxation, with a warning.
        trajectory: `.traj` or `.extxyz` of all steps. If the file exists, the relaxation resumes from its
            last frame, unless `overwrite`; structure, calculator, cell, pressure and symmetry must be those
            of the first call.
        progress: show steps on stderr.
        cell: the earlier name of `relax`, with "fixed", "isotropic" and "full" for "positions", "volume" and
            "cell"; taken until the next release.

    Raises:
        StructureError, ConfigError: wrong atoms or options, or the energy became NaN.
            Also: the trajectory belongs to another relaxation, or another run is writing to it.
        DataError: the trajectory holds other atoms, or is damaged.
        OutputError: the trajectory cannot be written.

    Example:
        >>> result = relax(atoms, relax="cell", keep_symmetry=True)
        >>> print(result.summary()); atoms = result.atoms()
    """
    settings = Settings(
        fmax=fmax, smax_gpa=smax_gpa, free=_free(relax, cell), pressure_gpa=pressure_gpa, optimizer=optimizer,
        symmetry=keep_symmetry, symprec=symprec, max_steps=max_steps, uncertainty_limit=uncertainty_limit,
    )  # fmt: skip
    steps = relaxing(atoms, settings, trajectory=trajectory, overwrite=overwrite, progress=progress)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: RelaxResult = end.value
            break
    if result.reason:
        warnings.warn(f"relax: {result.reason}", stacklevel=3)
    return result


def relaxing(
    atoms: Atoms,
    settings: Settings,
    *,
    trajectory: PathLike | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Generator[Atoms, None, RelaxResult]:
    """`relax` in steps: yields the atoms on their way wherever their forces are needed next.

    Who runs it may give their calculator the results before the next step; otherwise it computes them.
    """
    start, calculator = checked_copy(atoms, what="relax", periodic=False)
    _check(settings, start, calculator)
    work = start.copy()
    writer, done, first = None, 0, None
    if trajectory is not None:
        writer = FrameWriter(trajectory)
        mine = belongs_to(start, calculator, settings.decisive())
        done, first = (0, None) if overwrite else _resume(work, writer, mine)
        work.info[KEY] = mine
    work.calc = calculator
    group = _space_group(start, settings.symprec)
    try:
        history, reason = yield from _optimise(work, settings, writer, done, progress)
    finally:
        if writer:
            writer.close()
    groups = (group, _space_group(work, settings.symprec))
    before = history[0][1] if first is None else _enthalpy(first, settings)
    return _result(start, work, settings, history, before, reason, groups, trajectory)


def _free(relax: Free, cell: str | None) -> Free:
    """What moves, from the option of today or of earlier versions."""
    if cell is None:
        return relax
    word: Free = argument(Free, RENAMED.get(cell, cell), "cell")
    warnings.warn(
        f"cell={cell!r} is now relax={word!r}; the earlier option is taken until the next release",
        FutureWarning,
        stacklevel=4,
    )
    return word


def _check(settings: Settings, atoms: Atoms, calculator: Calculator) -> None:
    check_symprec(settings.symprec)
    for name in ("fmax", "smax_gpa"):
        positive(name, getattr(settings, name))
    if settings.uncertainty_limit is not None:
        positive("uncertainty_limit", settings.uncertainty_limit)
    if settings.max_steps < 1:
        raise ConfigError(f"max_steps is {settings.max_steps}; it must be at least 1")
    if not moves_cell(settings.free):
        if settings.pressure_gpa:
            raise ConfigError(
                f"pressure_gpa is {settings.pressure_gpa}, but relax='positions' keeps the cell; use "
                "relax='cell' or 'volume'"
            )
        return
    need_stress(calculator, f"relax with relax={settings.free!r}")
    check_constraints(atoms, settings.free)
    check_partly_periodic(atoms, f"relax with relax={settings.free!r}", settings.pressure_gpa)


def _resume(work: Atoms, writer: FrameWriter, mine: str) -> tuple[int, Atoms | None]:
    """Take positions and cell of the last frame of a trajectory; returns its step, and the start if known."""
    ends = first_and_last(writer, work, mine)
    if ends is None:
        return 0, None
    first, last = ends
    work.set_cell(last.cell)
    work.set_positions(last.positions, apply_constraint=False)
    first.set_constraint(work.constraints)  # those that add to the energy
    known = first.info.get("step") == 0 and first.calc is not None
    return int(last.info["step"]), first if known else None


def _optimise(
    work: Atoms, settings: Settings, writer: FrameWriter | None, done: int, progress: bool
) -> Generator[Atoms, None, tuple[list[tuple[float, ...]], str]]:
    """Run until both limits are met; yields the atoms before each evaluation.

    Returns rows (step, enthalpy, force, stress, volume), and what failed ("" when converged).
    """
    if writer:
        writer.open_after() if done else writer.open(None)
    history: list[tuple[float, ...]] = []
    bar = progress_bar(initial=done, unit="step", desc="relax", shown=progress)
    step = done
    try:
        # fmax=0 leaves the decision to the two limits below: ASE would mix forces and stress
        endless = dataclasses.replace(settings, fmax=0.0)
        for _ in endless.steps(work, max(0, settings.max_steps - done)):
            yield work
            row = (float(step), *_measure(work, settings))
            if not np.isfinite(row[1:4]).all():
                raise StructureError(
                    f"relax: energy, forces or stress are NaN at step {step}; "
                    "start from a better structure or use optimizer='fire'"
                )
            history.append(row)
            if writer and (step > done or not done):
                writer.write(_frame(work, step))
            if doubt := over_uncertainty(work, settings.uncertainty_limit):
                return history, f"stopped at step {step}: {doubt}"
            bar.set_postfix_str(f"E={row[1]:.5f} eV, fmax={row[2]:.2g} eV/Å, smax={row[3]:.2g} GPa")
            if row[2] <= settings.fmax and row[3] <= settings.smax_gpa:
                return history, ""
            step += 1
            bar.update(1)
    finally:
        bar.close()
    last = history[-1]
    return history, (
        f"not converged in {settings.max_steps} steps: the largest force is {last[2]:.2g} eV/Å (limit "
        f"{settings.fmax:g}), the stress off by {last[3]:.2g} GPa (limit {settings.smax_gpa:g}); raise "
        "max_steps or the limits, or try optimizer='fire'"
    )


def _frame(work: Atoms, step: int) -> Atoms:
    frame = make_frame(work, step, 0.0)
    frame.set_constraint([item for item in frame.constraints if not isinstance(item, PeriodicStrain)])
    return frame


def _measure(work: Atoms, settings: Settings) -> tuple[float, float, float, float]:
    """Enthalpy (eV), largest force (eV/Å), largest stress deviation (GPa, 0 if fixed), volume (Å³ or NaN)."""
    forces = work.get_forces()  # constraints applied
    off = stress_left(work, settings.free, settings.pressure_gpa)
    largest = float(np.linalg.norm(forces, axis=1).max())
    return _enthalpy(work, settings), largest, off, float(volume_or_nan(work))


def _enthalpy(atoms: Atoms, settings: Settings) -> float:
    """Energy (eV), with pressure times volume where the cell moves."""
    energy = as_energy(atoms.get_potential_energy())
    moves = moves_cell(settings.free)
    return energy + settings.pressure_gpa * units.GPa * volume_or_nan(atoms) if moves else energy


def _space_group(atoms: Atoms, symprec: float) -> str:
    """International symbol and number, or "" without spglib or for what is not a crystal."""
    if not is_crystal(atoms):
        return ""
    try:
        import spglib
    except ImportError:
        return ""
    crystal = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        with quiet_spglib():
            return spglib.get_spacegroup(crystal, symprec=symprec) or ""
    except StructureError:
        return ""


_HOLDING = (FixAtoms, FixCartesian, FixScaled, FixedLine, FixedPlane)


def _result(
    start: Atoms,
    work: Atoms,
    settings: Settings,
    history: list[tuple[float, ...]],
    before: float,
    reason: str,
    groups: tuple[str, str],
    trajectory: PathLike | None,
) -> RelaxResult:
    table = np.array(history).T  # (n_rows, 5) -> (5, n_rows)
    return RelaxResult(
        converged=not reason,
        reason=reason,
        n_steps=int(table[0, -1]),
        energy=as_energy(work.get_potential_energy()),
        cell_freedom=settings.free,
        pressure=settings.pressure_gpa * units.GPa,
        space_group_before=groups[0],
        space_group_after=groups[1],
        step=table[0].astype(int),
        enthalpy=table[1],
        max_force=table[2],
        stress_deviation=table[3] * units.GPa,
        volume=table[4],
        numbers=work.numbers.copy(),
        pbc=work.pbc.copy(),
        start_positions=start.get_positions(),
        start_cell=start.cell.array.copy(),
        start_enthalpy=before,
        positions=work.get_positions(),
        cell=work.cell.array.copy(),
        trajectory=str(trajectory) if trajectory is not None else None,
        attached=attached(start),
        held=any(isinstance(item, _HOLDING) for item in start.constraints),
        provenance=provenance(
            work.calc,
            fmax=settings.fmax,
            smax_gpa=settings.smax_gpa,
            optimizer=settings.optimizer,
            keep_symmetry=settings.symmetry,
        ),
    )
