"""`evaluate`: predictions of a potential, or of any ASE calculator, beside the labels of a dataset."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import chemical_symbols

from dpa2calc.ambient import own_modes
from dpa2calc.errors import DataError
from dpa2calc.files.arrays import read_arrays, write_arrays
from dpa2calc.files.shown import ShownBySummary
from dpa2calc.heads import resolve_head
from dpa2calc.model.potential import Potential
from dpa2calc.progress import progress_bar
from dpa2calc.store.load import load_model
from dpa2calc.training.data.checks.outliers import FewFrames, few_frames
from dpa2calc.training.data.checks.report import check_frames
from dpa2calc.training.data.checks.shear_order import misordered_shear
from dpa2calc.training.data.dataset import Dataset, Frame
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.fit.loader import GraphStore, groups_by_atoms, make_batch
from dpa2calc.training.fit.loss import symmetric
from dpa2calc.training.fit.optimizers.optimizer import placed

from .metrics import Errors, ErrorSums
from .statistics import energy_bias

_HEADER = "json"  # name of the JSON text in the file
_UNITS = {"energy": "meV/atom", "force": "meV/Å"}


@dataclass(frozen=True)
class Prediction:
    """What a model says about one frame: energy eV, forces (n, 3) eV/Å, virial (3, 3) eV; or None."""

    energy: float | None
    forces: np.ndarray | None
    virial: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Evaluation(ShownBySummary):
    """Errors and what they were made from.

    Attributes:
        errors: over all frames. by_group: by the frames' `group`. by_element: force RMSE of the atoms
            of each element, meV/Å.
        energies: (m, 2) label and prediction, eV/atom. forces: (k, 2) components, eV/Å.
        stresses: (l, 2) components, eV/Å^3.
        bias: energy an element (eV) that was fitted to the differences and added, or empty.
        few_frames: "energy" and "force" where a handful of frames makes most of the error.
        misordered: a line for each order, not the labels' own, in which shear stresses fit better.
    """

    name: str
    errors: Errors
    by_group: dict[str, Errors] = field(default_factory=dict)
    by_element: dict[str, float] = field(default_factory=dict)
    bias: dict[str, float] = field(default_factory=dict)
    energies: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    forces: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    stresses: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    few_frames: dict[str, FewFrames] = field(default_factory=dict)
    misordered: tuple[str, ...] = ()

    def summary(self) -> str:
        """Errors of the whole set, the worst groups, forces by element, and frames that stand out."""
        lines = [f"{self.name}: {self.errors}"]
        lines += self.remarks()
        if self.bias:
            lines.append(
                "energy bias refitted: " + ", ".join(f"{e} {b:+.4f} eV" for e, b in self.bias.items())
            )
        if len(self.by_element) > 1:
            lines.append(
                "force RMSE by element (meV/Å): "
                + ", ".join(f"{e} {v:.1f}" for e, v in self.by_element.items())
            )
        if len(self.by_group) > 1:
            ranked = sorted(
                self.by_group.items(), key=lambda item: -(item[1].force_rmse or item[1].energy_rmse or 0)
            )
            lines += [f"  {group or '(no group)'}: {errors}" for group, errors in ranked[:5]]
        return "\n".join(lines)

    def remarks(self) -> list[str]:
        """What to look at in the labels: few frames with most of an error, shear in another order."""
        few = [found.describe(name, _UNITS[name]) for name, found in self.few_frames.items()]
        return [*few, *self.misordered]

    def plot(self, axes: Any = None) -> Any:
        """Parity plots of energies, forces and, where there are any, stresses; returns the axes."""
        import matplotlib.pyplot as plt

        panels = [
            ("energy (eV/atom)", self.energies),
            ("force (eV/Å)", self.forces),
            ("stress (eV/Å³)", self.stresses),
        ]
        panels = [panel for panel in panels if len(panel[1])]
        if axes is None:
            _, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4), squeeze=False)
            axes = axes[0]
        for axis, (label, pairs) in zip(axes, panels):
            shown = pairs[:: max(len(pairs) // 20_000, 1)]
            low, high = float(shown.min()), float(shown.max())
            axis.plot([low, high], [low, high], color="0.6", lw=0.8)
            axis.plot(shown[:, 0], shown[:, 1], ".", ms=2, alpha=0.4, rasterized=True)
            axis.set(xlabel=f"label, {label}", ylabel=f"prediction, {label}", title=self.name)
        return axes

    def save(self, path: PathLike) -> Path:
        """Write one `.npz` without pickle; the file is renamed into place when whole."""
        target = Path(path)
        header = {
            "name": self.name,
            "errors": self.errors.to_dict(),
            "by_group": {k: e.to_dict() for k, e in self.by_group.items()},
            "by_element": self.by_element,
            "bias": self.bias,
            "few_frames": {k: dataclasses.asdict(few) for k, few in self.few_frames.items()},
            "misordered": self.misordered,
        }
        arrays = {"energies": self.energies, "forces": self.forces, "stresses": self.stresses}
        write_arrays(target, header, arrays, key=_HEADER)
        return target

    @classmethod
    def load(cls, path: PathLike) -> Evaluation:
        """Read what `save` wrote.

        Raises:
            DataError: the file is something else.
        """
        header, arrays = read_arrays(path, "an evaluation written by Evaluation.save", key=_HEADER)
        try:
            return cls(
                name=header["name"],
                errors=Errors(**header["errors"]),
                by_group={k: Errors(**e) for k, e in header["by_group"].items()},
                by_element=header["by_element"],
                bias=header["bias"],
                few_frames={k: FewFrames.from_dict(few) for k, few in header.get("few_frames", {}).items()},
                misordered=tuple(header.get("misordered", ())),
                **{name: arrays[name] for name in ("energies", "forces", "stresses")},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not an evaluation written by Evaluation.save: {error}") from error


@own_modes()
def predict_potential(
    potential: Potential,
    data: Dataset,
    *,
    head: int = 0,
    batch_atoms: int = 1024,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> list[Prediction]:
    """Predictions of one head for every frame, in batches.

    device: where to compute; a potential that is elsewhere is copied. None: where it is.
    """
    store = GraphStore(data, potential.config)
    potential = placed(potential, device)
    place = next(potential.parameters()).device
    sizes = [frame.n_atoms for frame in data]
    out = []
    bar = progress_bar(total=len(data), unit="frame", shown=progress)
    with bar, potential.using("inference"):
        for group in groups_by_atoms(sizes, batch_atoms):
            batch = make_batch(store, group, head=head).to(place)
            output = potential.compute(batch.graph, head)
            virial = symmetric(output.virial).detach().cpu().numpy()
            energy = output.energy.detach().cpu().numpy()
            cuts = np.cumsum([sizes[i] for i in group])[:-1]
            forces = np.split(output.forces.detach().cpu().numpy(), cuts)
            out += [Prediction(float(e), f, v) for e, f, v in zip(energy, forces, virial)]
            bar.update(len(group))
    return out


def predict_calculator(calculator: Any, data: Dataset, *, progress: bool = False) -> list[Prediction]:
    """Predictions of any ASE calculator; quantities it does not have are None.

    Raises:
        DataError: the calculator fails on a frame, which is named.
    """
    out = []
    for frame in progress_bar(data, unit="frame", shown=progress):
        atoms = frame.atoms()
        atoms.calc = calculator
        try:
            energy = float(atoms.get_potential_energy()) if frame.energy is not None else None
            forces = np.array(atoms.get_forces()) if frame.forces is not None else None
            virial = None
            if frame.virial is not None:
                try:
                    virial = -frame.volume * atoms.get_stress(voigt=False)
                except PropertyNotImplementedError:
                    virial = None
        except Exception as error:  # a calculator may raise anything
            raise DataError(f"{frame.source}: the calculator failed: {error}") from error
        out.append(Prediction(energy, forces, virial))
    return out


def find_head(potential: Potential, name: str | None) -> int:
    """Position of a head by name, alias or unique ending; without a name the only one.

    Raises:
        HeadError: no such head, several that fit, or several heads and none named.
    """
    heads = potential.config.heads
    return heads.index(resolve_head(name, heads))


@own_modes()
def evaluate(
    model: Potential | PathLike | Any,
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
        head: name of the head; may be left out where there is one.
        fit_bias: first fit an energy an element to the differences: errors of a model that has not seen
            this reference energy (zero-shot), or comes from another code.
        device: where a Potential or a checkpoint is evaluated, "cpu" or "cuda"; None takes the place where
            a Potential is, and the CPU for a file.

    Raises:
        DataError: a frame has a label that is not a number, or lacks parameters that the head needs.

    Example:
        >>> evaluate("runs/water/best.safetensors", Dataset.read("test.extxyz")).errors.force_rmse
    """
    check_frames(data.name, data)
    if isinstance(model, (str, os.PathLike)):
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
        predictions = predict_calculator(model, data, progress=progress)
    return compare(data, predictions, fit_bias=fit_bias)


def compare(data: Dataset, predictions: list[Prediction], *, fit_bias: bool = False) -> Evaluation:
    """Errors of predictions against labels, frame by frame."""
    bias: dict[str, float] = {}
    if fit_bias:
        predictions, bias = refit_bias(data, predictions)
    total = ErrorSums()
    by_group: dict[str, ErrorSums] = {}
    by_element: dict[int, tuple[float, int]] = {}
    pairs: dict[str, list[np.ndarray]] = {"energies": [], "forces": [], "stresses": []}
    by_frame: dict[str, list[tuple[float, int]]] = {"energy": [], "force": []}
    virials: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for frame, p in zip(data, predictions):
        errors = _frame_errors(frame, p, pairs)
        for values, part in zip(by_frame.values(), errors):
            values.append((1e6 * float((part**2).sum()), part.size))
        group = by_group.setdefault(frame.group, ErrorSums())
        if frame.virial is not None and p.virial is not None:
            pair = (frame.virial / frame.volume, p.virial / frame.volume)
            virials.setdefault(frame.group, []).append(pair)
        for sums in (total, group):
            sums.add(*(torch.from_numpy(e) for e in errors), n_frames=1, n_atoms=frame.n_atoms)
        if errors[1].size:
            for number in np.unique(frame.numbers):
                part = errors[1][frame.numbers == number]
                squares, count = by_element.get(int(number), (0.0, 0))
                by_element[int(number)] = (squares + float((part**2).sum()), count + part.size)
    return Evaluation(
        name=data.name,
        errors=total.errors(),
        by_group={name: sums.errors() for name, sums in by_group.items()},
        by_element={chemical_symbols[z]: 1e3 * (s / n) ** 0.5 for z, (s, n) in sorted(by_element.items())},
        bias=bias,
        few_frames=_few_frames(data, by_frame),
        misordered=misordered_shear(virials),
        **{name: np.concatenate(values) if values else np.zeros((0, 2)) for name, values in pairs.items()},
    )


def _few_frames(data: Dataset, by_frame: dict[str, list[tuple[float, int]]]) -> dict[str, FewFrames]:
    """From the sum of squares and the number of values of each frame."""

    def named(index: int) -> str:
        return f"{data[index].source}, {data[index].atoms().get_chemical_formula()}"

    found = {
        quantity: few_frames(named, [square for square, _ in values], [count for _, count in values])
        for quantity, values in by_frame.items()
    }
    return {quantity: few for quantity, few in found.items() if few is not None}


def _frame_errors(
    frame: Frame, p: Prediction, pairs: dict[str, list[np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = frame.n_atoms
    energy, forces, virial = np.zeros(0), np.zeros(0), np.zeros(0)
    if frame.energy is not None and p.energy is not None:
        energy = np.array([(p.energy - frame.energy) / n])
        pairs["energies"].append(np.array([[frame.energy / n, p.energy / n]]))
    if frame.forces is not None and p.forces is not None:
        forces = p.forces - frame.forces
        pairs["forces"].append(np.stack([frame.forces.ravel(), p.forces.ravel()], axis=1))
    if frame.virial is not None and p.virial is not None:
        virial = (p.virial - frame.virial) / n
        pairs["stresses"].append(-np.stack([frame.virial.ravel(), p.virial.ravel()], axis=1) / frame.volume)
    return energy, forces, virial


def refit_bias(data: Dataset, predictions: list[Prediction]) -> tuple[list[Prediction], dict[str, float]]:
    """Add the least-squares energy of each element of (label - prediction) to the predictions.

    Raises:
        DataError: no frame has both an energy label and a prediction.
    """
    both = [f.energy is not None and p.energy is not None for f, p in zip(data, predictions)]
    labelled = data.subset(np.flatnonzero(both))
    differences = np.array([f.energy - p.energy for f, p, b in zip(data, predictions, both) if b])  # type: ignore[operator]
    bias, _ = energy_bias(labelled, data.elements, residuals=differences)
    shifts = data.compositions(data.elements) @ bias
    moved = [
        dataclasses.replace(p, energy=None if p.energy is None else p.energy + float(shift))
        for p, shift in zip(predictions, shifts)
    ]
    return moved, dict(zip(data.elements, bias.tolist()))
