"""Errors of a potential on labelled data: sums that add up over batches and processes, and their averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from dpa2calc.ambient import own_modes
from dpa2calc.model.potential import Potential
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.fit.distributed import ALONE, Processes
from dpa2calc.training.fit.loader import Batch, GraphStore, groups_by_atoms, make_batch
from dpa2calc.training.fit.loss import symmetric
from dpa2calc.training.fit.optimizers.optimizer import placed

QUANTITIES = ("energy", "force", "virial")


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Root mean square and mean absolute errors; None where the set has no such label.

    Energies and virials in meV/atom, forces in meV/Å (over components).
    """

    n_frames: int
    n_atoms: int
    energy_rmse: float | None
    energy_mae: float | None
    force_rmse: float | None
    force_mae: float | None
    virial_rmse: float | None = None
    virial_mae: float | None = None

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain dict, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.n_frames} frames"]
        for name, unit in (("energy", "meV/atom"), ("force", "meV/Å"), ("virial", "meV/atom")):
            rmse, mae = getattr(self, f"{name}_rmse"), getattr(self, f"{name}_mae")
            if rmse is not None:
                parts.append(f"{name} RMSE {rmse:.2f} MAE {mae:.2f} {unit}")
        return ", ".join(parts)


class ErrorSums:
    """Sums of squares and magnitudes of errors, by quantity; `values` (2 + 3 x 3,) float64 can be added up.

    Energy and virial errors an atom in eV, force components in eV/Å.
    """

    def __init__(self, values: Tensor | None = None):
        self.values = torch.zeros(11, dtype=torch.float64) if values is None else values

    def add(
        self, d_energy: Tensor, d_forces: Tensor, d_virial: Tensor, *, n_frames: int, n_atoms: int
    ) -> None:
        """Count one batch; errors may be empty."""
        sums = [float(n_frames), float(n_atoms)]
        for error in (d_energy, d_forces, d_virial):
            error = error.detach().to("cpu", torch.float64)
            sums += [float((error * error).sum()), float(error.abs().sum()), float(error.numel())]
        self.values += torch.tensor(sums, dtype=torch.float64)

    def errors(self) -> Errors:
        """The averages."""
        n_frames, n_atoms, *rest = self.values.tolist()
        fields: dict[str, float | None] = {}
        for name, (squares, magnitudes, count) in zip(QUANTITIES, zip(*[iter(rest)] * 3)):
            fields[f"{name}_rmse"] = 1e3 * math.sqrt(squares / count) if count else None
            fields[f"{name}_mae"] = 1e3 * magnitudes / count if count else None
        return Errors(n_frames=int(n_frames), n_atoms=int(n_atoms), **fields)


def batch_errors(
    energy: Tensor, forces: Tensor, virial: Tensor, batch: Batch
) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction minus label where there is one: energy (eV/atom), forces (eV/Å), virial (eV/atom)."""
    return (
        ((energy - batch.energy) / batch.n_atoms)[batch.has_energy],
        (forces - batch.forces)[batch.has_forces],
        ((symmetric(virial) - batch.virial) / batch.n_atoms[:, None, None])[batch.has_virial],
    )


@own_modes()
def potential_errors(
    potential: Potential,
    data: GraphStore | Dataset,
    *,
    head: int = 0,
    batch_atoms: int = 1024,
    device: torch.device | str | None = None,
    processes: Processes = ALONE,
) -> Errors:
    """Errors of one head on all frames; several processes share the frames.

    device: where to compute; a potential that is elsewhere is copied. None: where it is.
    """
    potential = placed(potential, device)
    place = next(potential.parameters()).device
    store = data if isinstance(data, GraphStore) else GraphStore(data, potential.config)
    sums = ErrorSums()
    own = range(processes.rank, len(store), processes.size)
    with potential.using("inference"):
        for group in groups_by_atoms([store.dataset[i].n_atoms for i in own], batch_atoms):
            batch = make_batch(store, [own[i] for i in group], head=head).to(place)
            output = potential.compute(batch.graph, head)
            sums.add(
                *batch_errors(output.energy, output.forces, output.virial, batch),
                n_frames=len(group),
                n_atoms=batch.graph.n_atoms,
            )
    sums.values = processes.sum(sums.values)
    return sums.errors()


def validation_score(errors: Mapping[str, Errors], weights: Mapping[str, float]) -> float:
    """Weighted geometric mean over sets of sqrt(energy RMSE * force RMSE): no unit has to be chosen.

    Sets without energies or forces count with what they have; infinite when an error is not finite.
    """
    total = weight_sum = 0.0
    for name, e in errors.items():
        values = [v for v in (e.energy_rmse, e.force_rmse) if v is not None]
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
