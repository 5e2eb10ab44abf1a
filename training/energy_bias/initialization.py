"""Before the first step of fresh weights: no head starts eV an atom off."""

from __future__ import annotations

import torch
from torch import Tensor

from dpa2calc.model.potential import Potential
from dpa2calc.training.fit.loader import GraphStore, make_batch
from dpa2calc.training.fit.setup import TrainingData
from dpa2calc.training.statistics import spread_frames


def absorb_initial_energies(
    potential: Potential, data: TrainingData, *, frames: int = 20, seed: int = 0
) -> None:
    """Take from every head's energy bias what its untrained network gives on average, element by element.

    Otherwise each head starts some eV an atom off and spends its first hundreds of steps on a constant.
    Call it after `fit_energy_biases`, on fresh weights only.
    """
    n_types, by_head = potential.config.n_types, _rows_by_head(potential, data, frames, seed)
    for head, rows in by_head.items():
        bias = potential.get_submodule(f"heads.{head}.out_bias").get_buffer("values")
        counts = torch.stack([torch.bincount(types, minlength=n_types).double() for types, _ in rows])
        network = torch.stack([energy - (count @ bias.cpu()) for (_, energy), count in zip(rows, counts)])
        present = counts.any(dim=0)
        # An element's share of the network's energy; the least change where compositions do not tell.
        share = torch.linalg.lstsq(counts[:, present], network.unsqueeze(1), driver="gelsd", rcond=1e-6)
        bias[present.to(bias.device)] -= share.solution.squeeze(1).to(bias)


def _rows_by_head(
    potential: Potential, data: TrainingData, frames: int, seed: int
) -> dict[int, list[tuple[Tensor, Tensor]]]:
    """Types (n_atoms,) and energy () in eV of some frames of every set, by head."""
    rows: dict[int, list[tuple[Tensor, Tensor]]] = {}
    with potential.using("inference"), torch.no_grad():
        for name, item in data.sets.items():
            store, head = GraphStore(item.train, potential.config), data.heads[name]
            for index in spread_frames(item.train, frames, seed=seed):
                graph = make_batch(store, [index], head=head).graph.to(next(potential.parameters()).device)
                energies = potential.atomic_energies(graph, graph.vectors.to(potential.dtype), head)
                rows.setdefault(head, []).append((graph.types.cpu(), energies.sum().cpu()))
    return rows
