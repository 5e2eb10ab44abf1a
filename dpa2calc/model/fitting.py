"""Energy head: fitting net, and the float64 energy bias of each element (docs/maths.md 7)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dpa2calc.ambient import has_float64
from dpa2calc.model.config import HeadConfig
from dpa2calc.model.heads import Head


class Float64(nn.Module):
    """A float64 table that keeps its precision when the model around it is cast.

    On MPS, which has no float64, it stays on the CPU, and so do all sums.
    """

    values: Tensor

    def __init__(self, values: Tensor):
        super().__init__()
        self.register_buffer("values", values.to(torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float64:
        device = fn(torch.empty(0, device=self.values.device)).device
        if has_float64(device):
            self.values = self.values.to(device)
        return self


class EnergyHead(Head):
    """Descriptor -> energy of each atom, for one head."""

    def __init__(self, head: HeadConfig, n_types: int, descriptor_width: int, *, mixed_types: bool):
        super().__init__(head, n_types, descriptor_width, mixed_types=mixed_types)
        self.bias_atom_e = Float64(torch.zeros(n_types))
        self.out_bias = Float64(torch.zeros(n_types))

    def forward(
        self,
        descriptor: Tensor,
        types: Tensor,
        structure: Tensor,
        fparam: Tensor | None = None,
        aparam: Tensor | None = None,
    ) -> Tensor:
        """Energies (n_atoms,) in eV, float64, the element's bias included."""
        return self.with_features(descriptor, types, structure, fparam, aparam)[0]

    def with_features(
        self,
        descriptor: Tensor,
        types: Tensor,
        structure: Tensor,
        fparam: Tensor | None = None,
        aparam: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Energies as `forward`, and the features (n_atoms, m) of which they are a linear function."""
        extras = self.extra_inputs(types.shape[0], structure, fparam, aparam, descriptor)
        features = self.hidden(torch.cat([descriptor, *extras], dim=-1), types)
        values = self.ended(features, types)
        if self.config.removes_vacuum:
            vacuum = self.hidden(torch.cat([torch.zeros_like(descriptor), *extras], dim=-1), types)
            removed = self._has_vacuum(types)
            values = values - self.ended(vacuum, types) * removed
            features = features - vacuum * removed.unsqueeze(1)
        for kind in self.config.exclude_types:
            features = features.masked_fill((types == kind).unsqueeze(1), 0.0)
        types = types.to(self.out_bias.values.device)
        energies = values.to(self.out_bias.values) + self.bias_atom_e.values[types]
        for kind in self.config.exclude_types:
            energies = torch.where(types == kind, 0.0, energies)
        return energies + self.out_bias.values[types], features

    def why_no_rigidity(self) -> str | None:
        """The reason why it cannot say how sure it is, or None."""
        if type(self).forward is not EnergyHead.forward:
            return f"{type(self).__name__} makes energies in a way of its own, not from a last linear layer"
        return None

    def _has_vacuum(self, types: Tensor) -> Tensor:
        """True for atoms whose vacuum energy is removed: all with one net, else types with an entry."""
        if self.mixed_types:
            return torch.ones_like(types, dtype=torch.bool)
        given = [entry is not None for entry in self.config.atom_ener]
        return torch.tensor(given, device=types.device)[types]
