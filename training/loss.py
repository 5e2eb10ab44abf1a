"""The loss on energies, forces and virials (paper, section 4.3), and the errors reported beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dpa2calc.model.potential import Output

from .loader import Batch


@dataclass(frozen=True)
class LossTerms:
    """Scalar loss and the mean squares behind it (detached; NaN where there is no label).

    energy_mse: (eV/atom)^2; force_mse: (eV/Å)^2; virial_mse: (eV/atom)^2.
    """

    total: Tensor
    energy_mse: Tensor
    force_mse: Tensor
    virial_mse: Tensor


def symmetric(matrix: Tensor) -> Tensor:
    """(m, 3, 3) -> its symmetric part."""
    return 0.5 * (matrix + matrix.transpose(-1, -2))


def energy_force_loss(
    output: Output, batch: Batch, prefactors: tuple[float, float, float], *, huber_delta: float | None = None
) -> LossTerms:
    """p_e <n (dE/n)^2> + p_f <dF^2> + p_v <n (dW/n)^2>, each over the frames or components that have a label.

    The factor n (atoms in the frame) makes the prefactors mean what they mean in deepmd-kit's input
    files. With `huber_delta` (eV/atom, eV/Å) each square is replaced by Huber's function of the error an
    atom, without the factor n: large errors of odd frames then count linearly.
    """
    p_energy, p_force, p_virial = prefactors
    d_energy = ((output.energy - batch.energy) / batch.n_atoms)[batch.has_energy]
    d_forces = (output.forces - batch.forces)[batch.has_forces]
    d_virial = ((symmetric(output.virial) - batch.virial) / batch.n_atoms[:, None, None])[batch.has_virial]
    size = batch.n_atoms
    total = output.energy.sum() * 0.0  # keeps the graph when a batch has no label of a kind
    for prefactor, error, weight in (
        (p_energy, d_energy, size[batch.has_energy]),
        (p_force, d_forces, None),
        (p_virial, d_virial, size[batch.has_virial][:, None, None]),
    ):
        if prefactor and error.numel():
            total = total + prefactor * _mean_penalty(error, weight, huber_delta)
    return LossTerms(total, *(_mean_square(e.detach()) for e in (d_energy, d_forces, d_virial)))


def _mean_penalty(error: Tensor, weight: Tensor | None, huber_delta: float | None) -> Tensor:
    if huber_delta is not None:
        size = error.abs()
        # Scaled so that small errors give error^2, as without Huber.
        return torch.where(size <= huber_delta, error * error, huber_delta * (2.0 * size - huber_delta)).mean()
    squares = error * error
    return squares.mean() if weight is None else (squares * weight).mean()


def _mean_square(error: Tensor) -> Tensor:
    return (error * error).mean() if error.numel() else error.new_tensor(float("nan"))
