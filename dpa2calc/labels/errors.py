"""Errors of predicted energies, forces and virials against labels; of arrays, whatever model made them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress
from ase.units import GPa

from dpa2calc.errors import DataError
from dpa2calc.files.results import ShownBySummary
from dpa2calc.files.typed import to_dict

QUANTITIES = ("energy", "force", "virial", "value")


class Quantities(Protocol):
    """Of one structure, labels or predictions: energy eV, forces (n, 3) eV/Å, virial (3, 3) eV; or None.

    properties: (n,) of heads of other kinds, by name.
    """

    @property
    def energy(self) -> float | None: ...
    @property
    def forces(self) -> np.ndarray | None: ...
    @property
    def virial(self) -> np.ndarray | None: ...
    @property
    def properties(self) -> Mapping[str, np.ndarray]: ...


@dataclass(frozen=True)
class Prediction:
    """What a model says about one structure: energy eV, forces (n, 3) eV/Å, virial (3, 3) eV; or None.

    properties: (n,) of a head of another kind, by its label.
    """

    energy: float | None
    forces: np.ndarray | None
    virial: np.ndarray | None
    properties: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Differences:
    """Prediction minus label of one structure, empty where one of them is missing.

    energy: (1,) eV/atom. forces: (n, 3) eV/Å. virial: (3, 3) eV/atom. values: of a head with a label of
    its own, in its unit.
    """

    n_atoms: int
    energy: np.ndarray
    forces: np.ndarray
    virial: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, label: Quantities, made: Quantities, n_atoms: int) -> Differences:
        """Of a structure of this many atoms.

        Raises:
            DataError: a label or a prediction has another shape than the structure.
        """
        require_shapes(label, n_atoms, "the label")
        require_shapes(made, n_atoms, "the prediction")
        energy = np.atleast_1d(_difference(label.energy, made.energy)) / n_atoms
        forces, virial = _difference(label.forces, made.forces), _difference(label.virial, made.virial)
        given = {k: label.properties[k] for k in made.properties if k in label.properties}
        # atoms whose value is NaN have no such label
        values = [(made.properties[k] - value)[~np.isnan(value)] for k, value in given.items()]
        return cls(n_atoms, energy, forces, virial / n_atoms, np.concatenate([np.zeros(0), *values]))


def require_shapes(values: Quantities, n_atoms: int, whose: str) -> None:
    """Raise a DataError unless energy, forces and virial fit a structure of this many atoms."""
    for name, shape in (("energy", ()), ("forces", (n_atoms, 3)), ("virial", (3, 3))):
        value = getattr(values, name)
        if value is not None and np.shape(value) != shape:
            raise DataError(f"{whose}: {name} has shape {np.shape(value)}, expected {shape}")


def _difference(label: float | np.ndarray | None, made: float | np.ndarray | None) -> np.ndarray:
    return np.zeros(0) if label is None or made is None else np.asarray(made - label)


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Root mean square and mean absolute errors; None where the set has no such label.

    Energies and virials in meV/atom, forces in meV/Å (over components); values are what a head with a label
    of its own predicts, in its unit.
    """

    n_frames: int
    n_atoms: int
    energy_rmse: float | None
    energy_mae: float | None
    force_rmse: float | None
    force_mae: float | None
    virial_rmse: float | None = None
    virial_mae: float | None = None
    value_rmse: float | None = field(default=None, metadata={"left_out": True})
    value_mae: float | None = field(default=None, metadata={"left_out": True})

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain dict, ready for JSON."""
        return dict(to_dict(self))

    def __str__(self) -> str:
        parts = [f"{self.n_frames} frames"]
        for name, unit in (("energy", "meV/atom"), ("force", "meV/Å"), ("virial", "meV/atom"), ("value", "")):
            rmse, mae = getattr(self, f"{name}_rmse"), getattr(self, f"{name}_mae")
            if rmse is not None:
                digits = f"RMSE {rmse:.2f} MAE {mae:.2f}" if unit else f"RMSE {rmse:.4g} MAE {mae:.4g}"
                parts.append(f"{name} {digits} {unit}".rstrip())
        return ", ".join(parts)


class ErrorSums:
    """Sums of squares and magnitudes of errors, by quantity; `values` (2 + 4 x 3,) can be added up."""

    def __init__(self, values: np.ndarray | None = None):
        self.values = np.zeros(14) if values is None else values

    def count(self, *differences: np.ndarray, n_frames: int, n_atoms: int) -> None:
        """Take in energies (eV/atom), forces (eV/Å), virials (eV/atom), values; each may be empty."""
        sums = [float(n_frames), float(n_atoms)]
        for error in map(np.ravel, differences):
            sums += [float(error @ error), float(np.abs(error).sum()), float(error.size)]
        self.values += sums

    def add(self, d: Differences) -> None:
        """Take in one structure."""
        self.count(d.energy, d.forces, d.virial, d.values, n_frames=1, n_atoms=d.n_atoms)

    def errors(self) -> Errors:
        """The averages."""
        n_frames, n_atoms, *rest = self.values.tolist()
        fields: dict[str, float | None] = {}
        for name, (squares, magnitudes, count) in zip(QUANTITIES, zip(*[iter(rest)] * 3)):
            scale = 1.0 if name == "value" else 1e3
            fields[f"{name}_rmse"] = scale * math.sqrt(squares / count) if count else None
            fields[f"{name}_mae"] = scale * magnitudes / count if count else None
        return Errors(n_frames=int(n_frames), n_atoms=int(n_atoms), **fields)


def validation_score(
    errors: Mapping[str, Errors], weights: Mapping[str, float], learned: Collection[str] = QUANTITIES
) -> float:
    """Weighted geometric mean over sets of sqrt(energy RMSE * force RMSE): no unit has to be chosen.

    Sets without energies or forces, and heads of another kind, count with what they have; infinite when an
    error is not finite.

    Args:
        learned: the quantities that count where a set has them; others say little of a model.
    """
    total = weight_sum = 0.0
    for name, e in errors.items():
        found = {q: v for q in QUANTITIES if (v := getattr(e, f"{q}_rmse")) is not None}
        own = {q: v for q, v in found.items() if q in learned and q != "virial"}  # stress follows forces
        values = list((own or found).values())
        if not values:
            continue
        if not all(math.isfinite(v) for v in values):
            return math.inf
        total += weights[name] * sum(math.log(max(v, 1e-9)) for v in values) / len(values)
        weight_sum += weights[name]
    return math.exp(total / weight_sum) if weight_sum else math.inf


def weighted_average(
    errors: Mapping[str, Errors], weights: Mapping[str, float], quantity: str
) -> float | None:
    """The paper's WARMSE: mean of e.g. `force_rmse` over sets, weighted; sets without it are left out."""
    pairs = [
        (weights[n], getattr(e, quantity)) for n, e in errors.items() if getattr(e, quantity) is not None
    ]
    total = sum(w for w, _ in pairs)
    return sum(w * v for w, v in pairs) / total if total else None


def percent(share: float | None) -> str:
    """A share in words, "-" where there is none."""
    if share is None:
        return "-"
    return f"{100 * share:.3g} %" if share < 10 else f"{share:.3g} times"


@dataclass(frozen=True)
class ErrorFigure:
    """Mean absolute and root mean square error, bias (mean of prediction minus label), number of values.

    spread: standard deviation of the labels, where it was given; of energies, less those of their elements.
    """

    mae: float
    rmse: float
    bias: float
    count: int
    spread: float | None = field(default=None, metadata={"left_out": True})

    @classmethod
    def of(cls, differences: Sequence[np.ndarray], spread: float | None = None) -> ErrorFigure | None:
        """From prediction minus label, any shapes; None where there is not a number."""
        d = np.concatenate([np.zeros(0), *map(np.ravel, differences)])
        if not d.size:
            return None
        return cls(
            float(np.abs(d).mean()), float(np.sqrt((d**2).mean())), float(d.mean()), int(d.size), spread
        )

    @property
    def share(self) -> float | None:
        """Root mean square error over the labels' spread; 1 is that of their mean as prediction."""
        return self.rmse / self.spread if self.spread else None


@dataclass(frozen=True)
class LabelErrors(ShownBySummary):
    """Errors over all structures that have the label, in more detail than `Errors`.

    energy: meV/atom. energy_shifted: the same after taking the mean difference (`energy.bias`) away, which
    tells a constant offset between two codes from real errors. forces: meV/Å, a component. stress: GPa, of
    its six components.
    """

    n_structures: int
    energy: ErrorFigure | None = None
    energy_shifted: ErrorFigure | None = None
    forces: ErrorFigure | None = None
    stress: ErrorFigure | None = None

    @classmethod
    def of(
        cls,
        differences: Sequence[Differences],
        volumes: Sequence[float],
        *,
        energy_spread: float | None = None,
        forces: Sequence[np.ndarray] = (),
    ) -> LabelErrors | None:
        """None where no structure has a label.

        Args:
            volumes: Å^3. energy_spread: of the labels, meV/atom. forces: the labels, eV/Å, for their spread.
        """
        energies = 1e3 * np.concatenate([np.zeros(0), *(d.energy for d in differences)])
        stresses = [
            full_3x3_to_voigt_6_stress(-d.virial * (d.n_atoms / volume)) / GPa
            for d, volume in zip(differences, volumes)
            if d.virial.size and volume
        ]
        errors = cls(
            n_structures=sum(any(a.size for a in (d.energy, d.forces, d.virial)) for d in differences),
            energy=ErrorFigure.of([energies], energy_spread),
            energy_shifted=(
                ErrorFigure.of([energies - np.mean(energies)], energy_spread) if len(energies) > 1 else None
            ),
            forces=ErrorFigure.of(
                [1e3 * d.forces for d in differences],
                1e3 * float(np.concatenate(forces).std()) if len(forces) else None,
            ),
            stress=ErrorFigure.of(stresses),
        )
        return errors if errors.n_structures else None

    def summary(self) -> str:
        """A small table."""
        rows = [
            ("energy", "meV/atom", self.energy),
            ("energy, mean shift removed", "meV/atom", self.energy_shifted),
            ("forces", "meV/Å", self.forces),
            ("stress", "GPa", self.stress),
        ]
        lines = [
            f"errors against the labels of {self.n_structures} structures",
            f"{'':<28}{'RMSE':>10} {'MAE':>10} {'bias':>10} {'':<8} {'of spread':>10}",
        ]
        lines += [
            f"{name:<28}{f.rmse:10.3f} {f.mae:10.3f} {f.bias:10.3f} {unit:<8} {percent(f.share):>10}"
            f" ({f.count} values)"
            for name, unit, f in rows
            if f is not None
        ]
        return "\n".join(lines)
