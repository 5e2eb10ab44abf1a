"""The loss on energies, forces and virials (paper, section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dpa2calc.model.heads import Head
from dpa2calc.model.potential import Output, Potential

from .loader import Batch


@dataclass(frozen=True)
class LossTerms:
    """The scalar loss, and the errors behind it (detached; empty where there is no label).

    d_energy (m,) eV/atom; d_forces (n, 3) eV/Å; d_virial (m, 3, 3) eV/atom; d_values (n,) of what a head with
    a label of its own predicts, in its unit.
    """

    total: Tensor
    d_energy: Tensor
    d_forces: Tensor
    d_virial: Tensor
    d_values: Tensor = field(default_factory=lambda: torch.zeros(0))

    def differences(self) -> list[np.ndarray]:
        """Energies, forces, virials and other values, as `ErrorSums.count` takes them."""
        parts = (self.d_energy, self.d_forces, self.d_virial, self.d_values)
        return [d.cpu().double().numpy() for d in parts]


@dataclass(frozen=True)
class Labels:
    """How many labels a batch of a set holds on average: energies, atoms with forces, virials."""

    energies: float
    forces: float
    virials: float


def symmetric(matrix: Tensor) -> Tensor:
    """(m, 3, 3) -> its symmetric part."""
    return 0.5 * (matrix + matrix.transpose(-1, -2))


def energy_force_loss(
    output: Output,
    batch: Batch,
    prefactors: tuple[float, float, float],
    *,
    huber_delta: float | None = None,
    usual: Labels | None = None,
) -> LossTerms:
    """p_e <n (dE/n)^2> + p_f <dF^2> + p_v <n (dW/n)^2>, each over the frames or components that have a label.

    The factor n (atoms in the frame) makes the prefactors mean what they mean in deepmd-kit's input
    files. With `huber_delta` (eV/atom, eV/Å) each square is replaced by Huber's function of the error an
    atom, without the factor n: large errors of odd frames then count linearly.
    """
    p_energy, p_force, p_virial = prefactors
    size = batch.n_atoms
    d_energy = ((output.energy - batch.energy) / size)[batch.has_energy]
    d_forces = (output.forces - batch.forces)[batch.has_forces]
    d_virial = ((symmetric(output.virial) - batch.virial) / size[:, None, None])[batch.has_virial]
    total = output.energy.sum() * 0.0  # keeps the graph when a batch has no label of a kind
    number = usual or Labels(len(d_energy), len(d_forces), len(d_virial))
    for prefactor, error, weight, count in (
        (p_energy, d_energy, size[batch.has_energy], number.energies),
        (p_force, d_forces, None, 3.0 * number.forces),
        (p_virial, d_virial, size[batch.has_virial][:, None, None], 9.0 * number.virials),
    ):
        if prefactor and error.numel():
            total = total + prefactor / count * _penalty(error, weight, huber_delta)
    return LossTerms(total, d_energy.detach(), d_forces.detach(), d_virial.detach())


def own_loss(potential: Potential, batch: Batch) -> LossTerms:
    """What the batch's head, which has a label of its own, calls its loss."""
    head = potential.heads[batch.head]
    assert isinstance(head, Head)
    values = potential.atomic_values(batch.graph, batch.head)
    total = head.loss(values, batch.values, batch.has_values, batch.graph.structure)
    none = values.new_zeros(0)
    return LossTerms(total, none, none, none, (values - batch.values)[batch.has_values].detach())


def _penalty(error: Tensor, weight: Tensor | None, huber_delta: float | None) -> Tensor:
    if huber_delta is not None:
        size = error.abs()
        # Scaled so that small errors give error^2, as without Huber.
        return torch.where(size <= huber_delta, error * error, huber_delta * (2.0 * size - huber_delta)).sum()
    squares = error * error
    return (squares if weight is None else squares * weight).sum()
