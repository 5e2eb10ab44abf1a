"""Errors of a potential on labelled data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from dpa2calc.model.potential import Potential

from .dataset import Dataset
from .loader import GraphStore, groups_by_atoms, make_batch
from .loss import symmetric


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


@dataclass(frozen=True)
class Differences:
    """Prediction minus label by frame: energy (eV/atom), forces (n, 3), virial (3, 3) eV/atom, or None."""

    energy: list[float | None]
    forces: list[np.ndarray | None]
    virial: list[np.ndarray | None]
    n_atoms: list[int]

    def errors(self) -> Errors:
        """The usual averages."""
        energy = _concatenated(self.energy)
        forces = _concatenated(self.forces)
        virial = _concatenated(self.virial)
        return Errors(
            n_frames=len(self.n_atoms),
            n_atoms=sum(self.n_atoms),
            energy_rmse=_rmse(energy),
            energy_mae=_mae(energy),
            force_rmse=_rmse(forces),
            force_mae=_mae(forces),
            virial_rmse=_rmse(virial),
            virial_mae=_mae(virial),
        )


def _concatenated(values: Sequence[float | np.ndarray | None]) -> np.ndarray:
    present = [np.ravel(v) for v in values if v is not None]
    return np.concatenate(present) if present else np.zeros(0)


def _rmse(values: np.ndarray) -> float | None:
    return float(1e3 * np.sqrt(np.mean(values**2))) if values.size else None


def _mae(values: np.ndarray) -> float | None:
    return float(1e3 * np.mean(np.abs(values))) if values.size else None


def potential_differences(
    potential: Potential,
    data: Dataset | GraphStore,
    *,
    head: int = 0,
    batch_atoms: int = 1024,
    device: torch.device | str = "cpu",
) -> Differences:
    """Run a potential over all frames and subtract the labels."""
    store = data if isinstance(data, GraphStore) else GraphStore(data, potential.config, budget=0)
    result = Differences([], [], [], [])
    sizes = [frame.n_atoms for frame in store.dataset]
    for group in groups_by_atoms(sizes, batch_atoms):
        batch = make_batch(store, group, head).to(device)
        output = potential.compute(batch.graph, head)
        energies = output.energy.detach().cpu().numpy()
        virials = symmetric(output.virial).detach().cpu().numpy()
        forces = np.split(output.forces.detach().cpu().numpy(), np.cumsum([sizes[i] for i in group])[:-1])
        for position, index in enumerate(group):
            frame = store.dataset[index]
            n = frame.n_atoms
            result.n_atoms.append(n)
            result.energy.append(None if frame.energy is None else (energies[position] - frame.energy) / n)
            result.forces.append(None if frame.forces is None else forces[position] - frame.forces)
            result.virial.append(None if frame.virial is None else (virials[position] - frame.virial) / n)
    return result


def potential_errors(
    potential: Potential,
    data: Dataset | GraphStore,
    *,
    head: int = 0,
    batch_atoms: int = 1024,
    device: torch.device | str = "cpu",
) -> Errors:
    """Errors of one head of a potential on a dataset."""
    return potential_differences(
        potential, data, head=head, batch_atoms=batch_atoms, device=device
    ).errors()
