"""`evaluate`: predictions of a potential, or of any ASE calculator, beside the labels of a dataset."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.data import chemical_symbols

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.arrays import read_arrays, write_arrays
from dpa2calc.files.figures import Axes, panels_for
from dpa2calc.files.results import Result, from_plain, provenance
from dpa2calc.files.typed import shown, to_dict
from dpa2calc.heads import resolve_head
from dpa2calc.labels.errors import Differences, Errors, ErrorSums, Prediction, percent
from dpa2calc.model.potential import Potential
from dpa2calc.progress import progress_bar
from dpa2calc.store.load import load_model
from dpa2calc.training.data.checks.outliers import UNITS, FewFrames, frames_with_most_error
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.checks.shear_order import misordered_shear
from dpa2calc.training.data.dataset import Dataset, Frame, require_dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.fit.predict import predict_potential

from .data.element_energies import energy_spread
from .energy_bias import refit_predictions

_HEADER = "json"  # name of the JSON text in the file
_ARRAYS = ("energies", "forces", "stresses")


@dataclass(frozen=True, kw_only=True)
class Evaluation(Result):
    """Errors and what they were made from.

    Attributes:
        errors: over all frames. by_group: by the frames' `group`. by_element: force RMSE of the atoms
            of each element, meV/Å.
        energies: (m, 2) label and prediction, eV/atom. forces: (k, 2) components, eV/Å.
        stresses: (l, 2) components, eV/Å^3.
        bias: energy per element (eV) that was fitted to the differences and added, or empty.
        energy_spread: standard deviation of the energies, meV/atom, about the best energy of each element.
        few_frames: "energy" and "force" where a handful of frames makes most of the error.
        misordered: a line for each order, not the labels' own, in which shear stresses fit better.
        provenance: model, head, data and versions.
    """

    name: str
    errors: Errors
    by_group: dict[str, Errors] = field(default_factory=dict)
    by_element: dict[str, float] = field(default_factory=dict)
    bias: dict[str, float] = field(default_factory=dict)
    energies: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    forces: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    stresses: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    energy_spread: float | None = None
    few_frames: dict[str, FewFrames] = field(default_factory=dict)
    misordered: tuple[str, ...] = ()

    def summary(self) -> str:
        """Errors of the whole set, the worst groups, forces by element, and frames that stand out."""
        lines = [f"{self.name}: {self.errors}"]
        if shares := self.shares():
            parts = ", ".join(f"{quantity} {percent(share)}" for quantity, share in shares.items())
            lines.append(f"RMSE as a share of the labels' spread: {parts}")
        lines += self.remarks()
        if self.bias:
            shifts = ", ".join(f"{e} {b:+.4f} eV" for e, b in self.bias.items())
            lines.append(f"energy bias refitted: {shifts}")
        if len(self.by_element) > 1:
            errors = ", ".join(f"{e} {v:.1f}" for e, v in self.by_element.items())
            lines.append(f"force RMSE by element (meV/Å): {errors}")
        if len(self.by_group) > 1:
            ranked = sorted(
                self.by_group.items(), key=lambda item: -(item[1].force_rmse or item[1].energy_rmse or 0)
            )
            lines += [f"  {group or '(no group)'}: {found}" for group, found in ranked[:5]]
        return "\n".join(lines)

    def spreads(self) -> dict[str, float]:
        """Standard deviation of the labels: energy, less its elements', in meV/atom, forces in meV/Å."""
        force = 1e3 * float(self.forces[:, 0].std()) if len(self.forces) else None
        known = {"energy": self.energy_spread, "force": force}
        return {name: value for name, value in known.items() if value is not None}

    def shares(self) -> dict[str, float]:
        """RMSE of energies and forces over the spread of the labels; 1 is that of their mean."""
        known = {name: (getattr(self.errors, f"{name}_rmse"), s) for name, s in self.spreads().items()}
        return {name: rmse / s for name, (rmse, s) in known.items() if rmse is not None and s > 0}

    def remarks(self) -> list[str]:
        """What to look at in the labels: few frames with most of an error, shear in another order."""
        few = [found.describe(name, UNITS[name]) for name, found in self.few_frames.items()]
        return [*few, *self.misordered]

    def panels(self) -> dict[str, np.ndarray]:
        """What `plot` shows: label and prediction by quantity and unit, of those that there are."""
        panels = {
            "energy (eV/atom)": self.energies,
            "force (eV/Å)": self.forces,
            "stress (eV/Å³)": self.stresses,
        }
        return {label: pairs for label, pairs in panels.items() if len(pairs)}

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Parity plots of energies, forces and, where there are any, stresses; returns the axes."""
        panels = self.panels()
        axes = panels_for(axes, len(panels), (4.2 * len(panels), 4))
        for axis, (label, pairs) in zip(axes, panels.items()):
            shown = pairs[:: max(len(pairs) // 20_000, 1)]
            low, high = float(shown.min()), float(shown.max())
            axis.plot([low, high], [low, high], color="0.6", lw=0.8)
            axis.plot(shown[:, 0], shown[:, 1], ".", ms=2, alpha=0.4, rasterized=True)
            axis.set(xlabel=f"label, {label}", ylabel=f"prediction, {label}", title=self.name)
        return axes

    def save(self, path: PathLike) -> Path:
        """Write one `.npz` without pickle, in the layout of all versions; renamed into place when whole."""
        header = {f.name: to_dict(getattr(self, f.name)) for f in fields(self) if f.name not in _ARRAYS}
        write_arrays(path, header, {name: getattr(self, name) for name in _ARRAYS}, key=_HEADER)
        return Path(path)

    @classmethod
    def load(cls, path: PathLike) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            DataError: the file is something else.
        """
        header, arrays = read_arrays(path, "an evaluation written by Evaluation.save", key=_HEADER)
        try:
            return from_plain(cls, {**header, **{name: arrays[name] for name in _ARRAYS}})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not an evaluation written by Evaluation.save: {error}") from error


def predict_calculator(calculator: Calculator, data: Dataset, *, progress: bool = False) -> list[Prediction]:
    """Predictions of any ASE calculator, None where it has none; a DataError names the frame it fails on."""
    out = []
    for frame in progress_bar(data, unit="frame", shown=progress):
        atoms = frame.atoms()
        atoms.calc = calculator
        try:
            energy = float(atoms.get_potential_energy()) if frame.energy is not None else None
            forces = np.array(atoms.get_forces()) if frame.forces is not None else None
            virial = None
            if frame.stress is not None:  # of a virial without a volume it has none
                with contextlib.suppress(PropertyNotImplementedError):
                    virial = -frame.volume * atoms.get_stress(voigt=False)
        except Exception as error:  # a calculator may raise anything
            raise DataError(f"{frame.source}: the calculator failed: {error}") from error
        out.append(Prediction(energy, forces, virial))
    return out


def find_head(potential: Potential, name: str | None) -> int:
    """Position of a head by name, alias or unique ending, or a HeadError; without a name the only one."""
    heads = potential.config.heads
    return heads.index(resolve_head(name, heads))


@own_modes()
def evaluate(
    model: Potential | PathLike | Calculator,
    data: Dataset,
    *,
    head: str | None = None,
    fit_bias: bool = False,
    batch_atoms: int = 1024,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Compare a model with the labels of a dataset.

    Args:
        model: a Potential, a checkpoint's path, a published model's name, or any ASE calculator.
        head: name of the head of a model; may be left out where there is one.
        fit_bias: first fit an energy per element to the differences: errors of a model that has not seen
            this reference energy (zero-shot), or comes from another code.
        device: where a Potential or a checkpoint is evaluated, "cpu" or "cuda"; None takes the place where
            a Potential is, and the CPU for a file.

    Raises:
        DataError: a frame has a label that is not a number, or lacks parameters that the head needs.
        ConfigError: `head` beside a calculator, which has its own.

    Example:
        >>> evaluate("runs/water/best.safetensors", Dataset.read("test.extxyz")).errors.force_rmse
    """
    require_dataset(data, "data")
    check_frames(data.name, data)
    record = provenance(data=data.name, head=head)
    if isinstance(model, (str, os.PathLike)):
        record["model"] = os.fspath(model)
        model = load_model(os.fspath(model))
    if isinstance(model, Potential):
        predictions = predict_potential(
            model,
            data,
            head=find_head(model, head),
            batch_atoms=batch_atoms,
            device=device,
            progress=progress,
        )
    else:
        if isinstance(model, type) or not hasattr(model, "get_potential_energy"):
            raise ConfigError(
                f"model = {shown(model)} is not allowed; allowed: a Potential, a model's name, the path of a "
                "file, or an ASE calculator"
            )
        if head is not None:
            raise ConfigError(f"head = {head!r} is for models; a calculator is evaluated as it was made")
        record = provenance(model, data=data.name)
        predictions = predict_calculator(model, data, progress=progress)
    return dataclasses.replace(compare(data, predictions, fit_bias=fit_bias), provenance=record)


def compare(data: Dataset, predictions: list[Prediction], *, fit_bias: bool = False) -> Evaluation:
    """Errors of predictions against labels, frame by frame."""
    bias: dict[str, float] = {}
    if fit_bias:
        predictions, bias = refit_predictions(data, predictions)
    differences = [Differences.of(frame, p, frame.n_atoms) for frame, p in zip(data, predictions)]
    total = ErrorSums()
    by_group: dict[str, ErrorSums] = {}
    by_element: dict[int, tuple[float, int]] = {}
    stresses: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for frame, p, d in zip(data, predictions, differences):
        if frame.stress is not None and p.virial is not None:
            stresses.setdefault(frame.group, []).append((frame.stress, -p.virial / frame.volume))
        for sums in (total, by_group.setdefault(frame.group, ErrorSums())):
            sums.add(d)
        for number in np.unique(frame.numbers) if d.forces.size else ():
            part = d.forces[frame.numbers == number]
            squares, count = by_element.get(int(number), (0.0, 0))
            by_element[int(number)] = (squares + float((part**2).sum()), count + part.size)
    energies, forces, components = _pairs(data, predictions)
    return Evaluation(
        name=data.name,
        errors=total.errors(),
        by_group={name: sums.errors() for name, sums in by_group.items()},
        by_element={chemical_symbols[z]: 1e3 * (s / n) ** 0.5 for z, (s, n) in sorted(by_element.items())},
        bias=bias,
        few_frames=frames_with_most_error(differences, lambda i: _named(data[i])),
        misordered=misordered_shear(stresses),
        energy_spread=energy_spread(data) if len(energies) else None,
        energies=energies,
        forces=forces,
        stresses=components,
    )


def _named(frame: Frame) -> str:
    return f"{frame.source}, {frame.atoms().get_chemical_formula()}"


def _pairs(data: Dataset, predictions: list[Prediction]) -> Iterator[np.ndarray]:
    """Labels beside predictions, for parity plots: of energies, forces and stresses, each (n, 2)."""
    found: list[list[np.ndarray]] = [[np.zeros((0, 2))] for _ in _ARRAYS]
    for frame, p in zip(data, predictions):
        energy = None if p.energy is None else p.energy / frame.n_atoms
        label = None if frame.energy is None else frame.energy / frame.n_atoms
        stress = None if p.virial is None or frame.stress is None else -p.virial / frame.volume
        pairs = ((label, energy), (frame.forces, p.forces), (frame.stress, stress))
        for values, (given, made) in zip(found, pairs):
            if given is not None and made is not None:
                values.append(np.stack([np.ravel(given), np.ravel(made)], axis=1))
    return map(np.concatenate, found)
