"""Relax atoms and, if wanted, the cell, with separate limits on forces and stress."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import ase.io
import numpy as np
from ase import Atoms, units
from tqdm import tqdm

from dpa2calc.errors import ConfigError, DataError, StructureError
from dpa2calc.lattice import is_crystal, volume_or_nan

from ._evaluate import automatic_optimizer
from ._structures import checked_copy, need_stress, positive, quiet_spglib, require
from .md_files import FrameWriter, make_frame
from .relax_result import RelaxResult
from .result import provenance

Optimizer = Literal["auto", "bfgs", "lbfgs", "fire", "fire2", "bfgs-linesearch", "gpmin"]
CellFreedom = Literal["fixed", "isotropic", "axes", "shape", "full"]
PathLike = str | os.PathLike[str]

# which of the six strains may change, in ASE's order xx, yy, zz, yz, xz, xy
_MASKS = {"axes": [1, 1, 1, 0, 0, 0]}


@dataclass(frozen=True, kw_only=True)
class _Settings:
    fmax: float
    smax_gpa: float
    cell: CellFreedom
    pressure_gpa: float
    optimizer: Optimizer
    symmetry: bool
    symprec: float
    max_steps: int


def relax(
    atoms: Atoms,
    *,
    fmax: float = 0.01,
    cell: CellFreedom = "fixed",
    smax_gpa: float = 0.02,
    pressure_gpa: float = 0.0,
    optimizer: Optimizer = "auto",
    keep_symmetry: bool = False,
    symprec: float = 0.01,
    max_steps: int = 500,
    trajectory: PathLike | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> RelaxResult:
    """Find the nearest minimum of the energy (at a pressure: of the enthalpy).

    Args:
        atoms: with a calculator; never changed. Constraints on them are obeyed.
        fmax: largest force that may be left on an atom, eV/Å.
        cell: "fixed"; "isotropic" (volume only); "axes" (three lengths in x, y, z); "shape" (at constant
            volume); "full".
        smax_gpa: largest deviation of a free stress component from the pressure, GPa.
        pressure_gpa: GPa.
        optimizer: "auto" takes BFGS for up to 200 atoms, else FIRE, which is the sturdiest far from the
            minimum.
        keep_symmetry: keep the space group of the start, found within `symprec` Å (needs spglib).
        max_steps: in all; reaching it is a warning, and `converged` is False.
        trajectory: `.traj` or `.extxyz` of all steps. If the file exists, the relaxation goes on from its
            last frame, unless `overwrite`.
        progress: show steps on stderr.

    Raises:
        StructureError, ConfigError: wrong atoms or options, or the energy became NaN.
        DataError: the trajectory holds other atoms.

    Example:
        >>> result = relax(atoms, cell="full", keep_symmetry=True)
        >>> print(result.summary()); atoms = result.atoms()
    """
    settings = _Settings(
        fmax=fmax, smax_gpa=smax_gpa, cell=cell, pressure_gpa=pressure_gpa, optimizer=optimizer,
        symmetry=keep_symmetry, symprec=symprec, max_steps=max_steps,
    )  # fmt: skip
    start, calculator = checked_copy(atoms, what="relax", periodic=False)
    _check(settings, start, calculator)
    work = start.copy()
    done = _resume(work, trajectory) if trajectory is not None and not overwrite else 0
    work.calc = calculator
    group = _space_group(start, symprec)
    if keep_symmetry:
        require("spglib", "keeping the symmetry during a relaxation")
        from ase.constraints import FixSymmetry

        work.set_constraint([*work.constraints, FixSymmetry(work, symprec=symprec)])
    writer = FrameWriter(trajectory) if trajectory is not None else None
    try:
        history, reason = _optimise(work, settings, writer, done, progress)
    finally:
        if writer:
            writer.close()
    if reason:
        warnings.warn(f"relax: {reason}", stacklevel=2)
    return _result(start, work, settings, history, reason, (group, _space_group(work, symprec)), trajectory)


def _check(settings: _Settings, atoms: Atoms, calculator: Any) -> None:
    for name, choices in (("cell", CellFreedom), ("optimizer", Optimizer)):
        if getattr(settings, name) not in get_args(choices):
            raise ConfigError(
                f"{name} is {getattr(settings, name)!r}; choose one of {', '.join(get_args(choices))}"
            )
    for name in ("fmax", "smax_gpa", "symprec"):
        positive(name, getattr(settings, name))
    if settings.max_steps < 1:
        raise ConfigError(f"max_steps is {settings.max_steps}; it must be at least 1")
    if settings.cell == "fixed":
        if settings.pressure_gpa:
            raise ConfigError(
                f"pressure_gpa is {settings.pressure_gpa}, but cell='fixed'; use cell='full' or 'isotropic'"
            )
        return
    need_stress(calculator, f"relax with cell={settings.cell!r}")
    if not is_crystal(atoms):
        raise StructureError(
            f"relax with cell={settings.cell!r} needs a crystal, periodic in three directions; "
            f"pbc is {atoms.pbc.tolist()}"
        )


def _resume(work: Atoms, trajectory: PathLike) -> int:
    """Take positions and cell of the last frame of an existing trajectory; returns its step."""
    if not Path(trajectory).exists():
        return 0
    try:
        last: Any = ase.io.read(Path(trajectory), index=-1)
        step = int(last.info["step"])
    except Exception as error:  # whatever ASE's readers raise
        raise DataError(
            f"{trajectory} is no trajectory of relax ({type(error).__name__}: {error}); "
            "give overwrite=True to replace it"
        ) from error
    if not np.array_equal(last.numbers, work.numbers):
        raise DataError(
            f"{trajectory} holds {last.get_chemical_formula()}, not {work.get_chemical_formula()}; "
            "give another file or overwrite=True"
        )
    work.set_cell(last.cell)
    work.set_positions(last.positions, apply_constraint=False)
    return step


def _make_optimizer(work: Atoms, settings: _Settings) -> Any:
    import ase.optimize
    from ase.filters import FrechetCellFilter

    target: Any = work
    if settings.cell != "fixed":
        target = FrechetCellFilter(
            work,
            mask=_MASKS.get(settings.cell),
            hydrostatic_strain=settings.cell == "isotropic",
            constant_volume=settings.cell == "shape",
            scalar_pressure=settings.pressure_gpa * units.GPa,
        )
    name: str = settings.optimizer
    if name == "auto":
        name = automatic_optimizer(len(work)).__name__.lower()
    classes: dict[str, Callable[..., Any]] = {
        "bfgs": ase.optimize.BFGS,
        "lbfgs": ase.optimize.LBFGS,
        "fire": ase.optimize.FIRE,
        "fire2": ase.optimize.FIRE2,
        "bfgs-linesearch": ase.optimize.BFGSLineSearch,
        "gpmin": ase.optimize.GPMin,
    }
    options = {"maxstep": 0.1} if "bfgs" in name else {}
    return classes[name](target, logfile=None, **options)


def _optimise(
    work: Atoms, settings: _Settings, writer: FrameWriter | None, done: int, progress: bool
) -> tuple[list[tuple[float, ...]], str]:
    """Run until both limits are met.

    Returns rows (step, enthalpy, force, stress, volume), and what failed ("" when converged).
    """
    optimizer = _make_optimizer(work, settings)
    if writer:
        writer.open_append() if done else writer.open(None)
    history: list[tuple[float, ...]] = []
    bar = tqdm(initial=done, unit="step", desc="relax", file=sys.stderr, disable=not progress)
    step = done
    try:
        # fmax=0 leaves the decision to the two limits below: ASE would mix forces and stress
        for _ in optimizer.irun(fmax=0.0, steps=max(0, settings.max_steps - done)):
            row = (float(step), *_measure(work, settings))
            if not np.isfinite(row[1:4]).all():
                raise StructureError(
                    f"relax: energy, forces or stress are NaN at step {step}; "
                    "start from a better structure or use optimizer='fire'"
                )
            history.append(row)
            if writer and (step > done or not done):
                writer.write(make_frame(work, step, 0.0))
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


def _measure(work: Atoms, settings: _Settings) -> tuple[float, float, float, float]:
    """Enthalpy (eV), largest force (eV/Å), largest stress deviation (GPa, 0 if fixed), volume (Å³ or NaN)."""
    forces = work.get_forces()  # constraints applied
    volume = volume_or_nan(work)
    enthalpy = float(work.get_potential_energy())
    off = 0.0
    if settings.cell != "fixed":
        pressure = settings.pressure_gpa * units.GPa
        enthalpy += pressure * volume
        stress = work.get_stress()  # (6,) xx, yy, zz, yz, xz, xy
        deviation = stress + pressure * np.array([1, 1, 1, 0, 0, 0])
        if settings.cell == "isotropic":
            deviation = deviation[:3].mean(keepdims=True)
        elif settings.cell == "axes":
            deviation = deviation[:3]
        elif settings.cell == "shape":
            deviation = stress - np.array([1, 1, 1, 0, 0, 0]) * stress[:3].mean()
        off = float(np.abs(deviation).max()) / units.GPa
    return enthalpy, float(np.linalg.norm(forces, axis=1).max()), off, float(volume)


def _space_group(atoms: Atoms, symprec: float) -> str:
    """International symbol and number, or "" without spglib or for what is not a crystal."""
    if not is_crystal(atoms):
        return ""
    try:
        import spglib
    except ImportError:
        return ""
    crystal = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    with quiet_spglib():
        return spglib.get_spacegroup(crystal, symprec=symprec) or ""


def _result(
    start: Atoms,
    work: Atoms,
    settings: _Settings,
    history: list[tuple[float, ...]],
    reason: str,
    groups: tuple[str, str],
    trajectory: PathLike | None,
) -> RelaxResult:
    table = np.array(history).T  # (n_rows, 5) -> (5, n_rows)
    return RelaxResult(
        converged=not reason,
        reason=reason,
        n_steps=int(table[0, -1]),
        energy=float(work.get_potential_energy()),
        cell_freedom=settings.cell,
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
        positions=work.get_positions(),
        cell=work.cell.array.copy(),
        trajectory=str(trajectory) if trajectory is not None else None,
        provenance=provenance(
            work.calc,
            fmax=settings.fmax,
            smax_gpa=settings.smax_gpa,
            optimizer=settings.optimizer,
            keep_symmetry=settings.symmetry,
        ),
    )
