"""Energy head: fitting net, and the float64 energy bias of each element (paper, section 4.2; MATHS 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dpa2calc.ambient import has_float64
from dpa2calc.errors import StructureError
from dpa2calc.model.config import FittingConfig
from dpa2calc.model.layers import MLP


class Float64(nn.Module):
    """A float64 table that keeps its precision when the model around it is cast.

    On MPS, which has no float64, it stays on the CPU, and so do all sums.
    """

    values: Tensor

    def __init__(self, values: Tensor):
        super().__init__()
        self.register_buffer("values", values.to(torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        device = fn(torch.empty(0, device=self.values.device)).device
        if has_float64(device):
            self.values = self.values.to(device)
        return self


class EnergyHead(nn.Module):
    """Descriptor -> energy of each atom, for one head."""

    fparam_avg: Tensor | None
    fparam_inv_std: Tensor | None
    aparam_avg: Tensor | None
    aparam_inv_std: Tensor | None
    case_embd: Tensor | None

    def __init__(self, config: FittingConfig, n_types: int, descriptor_width: int, *, mixed_types: bool):
        super().__init__()
        c = config
        self.config, self.n_types, self.mixed_types = c, n_types, mixed_types
        self.descriptor_width = descriptor_width
        n_in = descriptor_width + c.numb_fparam + c.numb_aparam + c.dim_case_embd
        self.nets = nn.ModuleList(
            MLP(n_in, c.neuron, c.activation, resnet_dt=c.resnet_dt, n_out=1)
            for _ in range(1 if mixed_types else n_types)
        )
        for name, size in (("fparam", c.numb_fparam), ("aparam", c.numb_aparam)):
            self.register_buffer(f"{name}_avg", torch.zeros(size, dtype=torch.float32) if size else None)
            self.register_buffer(f"{name}_inv_std", torch.ones(size, dtype=torch.float32) if size else None)
        case = torch.zeros(c.dim_case_embd, dtype=torch.float32) if c.dim_case_embd else None
        self.register_buffer("case_embd", case)
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
        """Energies (n_atoms,) in eV, float64, the element's bias included.

        Args:
            descriptor: (n_atoms, width). types, structure: (n_atoms,).
            fparam: (n_structures, numb_fparam); aparam: (n_atoms, numb_aparam).

        Raises:
            StructureError: the head needs parameters that are missing or have the wrong size.
        """
        extras = self._extra_inputs(types.shape[0], structure, fparam, aparam, descriptor)
        values = self._net(torch.cat([descriptor, *extras], dim=-1), types)
        if self.config.atom_ener:
            vacuum = self._net(torch.cat([torch.zeros_like(descriptor), *extras], dim=-1), types)
            values = values - vacuum * self._has_vacuum(types)
        types = types.to(self.out_bias.values.device)
        energies = values.to(self.out_bias.values) + self.bias_atom_e.values[types]
        for kind in self.config.exclude_types:
            energies = torch.where(types == kind, 0.0, energies)
        return energies + self.out_bias.values[types]

    def _net(self, inputs: Tensor, types: Tensor) -> Tensor:
        if self.mixed_types:
            return self.nets[0](inputs).squeeze(-1)
        out = inputs.new_zeros(inputs.shape[0])
        for kind, net in enumerate(self.nets):
            atoms = (types == kind).nonzero().squeeze(1)
            if atoms.numel():
                out = out.index_copy(0, atoms, net(inputs[atoms]).squeeze(-1))
        return out

    def _has_vacuum(self, types: Tensor) -> Tensor:
        """True for atoms whose vacuum energy is removed: all with one net, else types with an entry."""
        if self.mixed_types:
            return torch.ones_like(types, dtype=torch.bool)
        given = [entry is not None for entry in self.config.atom_ener]
        return torch.tensor(given, device=types.device)[types]

    def _extra_inputs(
        self, n_atoms: int, structure: Tensor, fparam: Tensor | None, aparam: Tensor | None, like: Tensor
    ) -> list[Tensor]:
        c = self.config
        extras = []
        if self.fparam_avg is not None and self.fparam_inv_std is not None:
            if fparam is None and c.default_fparam is not None:
                fparam = like.new_tensor(c.default_fparam).expand(int(structure.max()) + 1, -1)
            fparam = _checked("fparam", fparam, c.numb_fparam)
            scaled = (fparam.to(like) - self.fparam_avg) * self.fparam_inv_std
            extras.append(scaled[structure])
        if self.aparam_avg is not None and self.aparam_inv_std is not None:
            aparam = _checked("aparam", aparam, c.numb_aparam)
            extras.append((aparam.to(like) - self.aparam_avg) * self.aparam_inv_std)
        if self.case_embd is not None:
            extras.append(self.case_embd.expand(n_atoms, -1))
        return extras


def _checked(name: str, values: Tensor | None, width: int) -> Tensor:
    if values is None or values.shape[-1] != width:
        seen = "none" if values is None else f"{values.shape[-1]}"
        per = "frame" if name == "fparam" else "atom"
        raise StructureError(
            f"this head needs {width} numbers a {per} ({name}), got {seen}; set atoms.info[{name!r}]"
            if name == "fparam"
            else f"this head needs {width} numbers a {per} ({name}), got {seen}; set atoms.arrays[{name!r}]"
        )
    return values
