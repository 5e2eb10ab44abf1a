"""Heads on a descriptor: what every one must say of itself, and the registry of their classes by kind."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dpa2calc.errors import StructureError
from dpa2calc.model.config import HeadConfig
from dpa2calc.model.layers import MLP
from dpa2calc.model.rigidity import Rigidity

# Where the class of each kind is; imported when a model with such a head is built.
_CLASSES: dict[str, str | type[Head]] = {"energy": "dpa2calc.model.fitting:EnergyHead"}


class Head(nn.Module):
    """Descriptor -> what is predicted of each atom, by one fitting net, or one for each element.

    A subclass says what is made of the nets' output, and what its loss is. A head of energies, whose
    configuration has no `label`, is a subclass of `dpa2calc.model.fitting.EnergyHead`.
    """

    fparam_avg: Tensor | None
    fparam_inv_std: Tensor | None
    aparam_avg: Tensor | None
    aparam_inv_std: Tensor | None
    case_embd: Tensor | None

    def __init__(self, head: HeadConfig, n_types: int, descriptor_width: int, *, mixed_types: bool):
        super().__init__()
        c = head.fitting
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
        # How sure it is, where that was measured; not a weight, and gone when weights are trained.
        self.rigidity: Rigidity | None = None

    def forward(
        self,
        descriptor: Tensor,
        types: Tensor,
        structure: Tensor,
        fparam: Tensor | None = None,
        aparam: Tensor | None = None,
    ) -> Tensor:
        """One number of each atom, (n_atoms,).

        Args:
            descriptor: (n_atoms, width). types, structure: (n_atoms,).
            fparam: (n_structures, numb_fparam); aparam: (n_atoms, numb_aparam).

        Raises:
            StructureError: the head needs parameters that are missing or have the wrong size.
        """
        extras = self.extra_inputs(types.shape[0], structure, fparam, aparam, descriptor)
        return self.fitted(torch.cat([descriptor, *extras], dim=-1), types)

    def fit_to(self, labels: Tensor, types: Tensor) -> None:
        """Before the first step: take scales from the training labels (n,) of atoms of these types (n,)."""

    def loss(self, values: Tensor, labels: Tensor, known: Tensor, structure: Tensor) -> Tensor:
        """What training makes small, (); here the mean square of the errors of labelled atoms.

        Args:
            values, labels: (n_atoms,). known: (n_atoms,) bool, which atoms have a label.
            structure: (n_atoms,), which structure the atom belongs to.
        """
        errors = (values - labels)[known]
        return (errors * errors).sum() / max(errors.numel(), 1)

    def fitted(self, inputs: Tensor, types: Tensor) -> Tensor:
        """Output of the net, or of the net of each atom's type, (n_atoms,)."""
        return self._by_net(MLP.__call__, inputs, types, 1).squeeze(-1)

    def hidden(self, inputs: Tensor, types: Tensor) -> Tensor:
        """The last hidden layer of the net, or of the net of each atom's type, (n_atoms, m)."""
        return self._by_net(MLP.hidden, inputs, types, self.config.neuron[-1])

    def ended(self, hidden: Tensor, types: Tensor) -> Tensor:
        """Output of the net, (n_atoms,), from its last hidden layer."""
        return self._by_net(MLP.ended, hidden, types, 1).squeeze(-1)

    def _by_net(self, apply: Callable[[MLP, Tensor], Tensor], x: Tensor, types: Tensor, width: int) -> Tensor:
        if self.mixed_types:
            return apply(self.nets[0], x)  # type: ignore[arg-type]
        out = x.new_zeros(x.shape[0], width)
        for kind, net in enumerate(self.nets):
            atoms = (types == kind).nonzero().squeeze(1)
            if atoms.numel():
                out = out.index_copy(0, atoms, apply(net, x[atoms]))  # type: ignore[arg-type]
        return out

    def extra_inputs(
        self, n_atoms: int, structure: Tensor, fparam: Tensor | None, aparam: Tensor | None, like: Tensor
    ) -> list[Tensor]:
        """What follows the descriptor in the nets' input."""
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
        seen = "none" if values is None else values.shape[-1]
        per, place = ("frame", "info") if name == "fparam" else ("atom", "arrays")
        raise StructureError(
            f"this head needs {width} numbers per {per} ({name}), got {seen}; set atoms.{place}[{name!r}]"
        )
    return values


def register(config: type[HeadConfig], module: type[Head]) -> None:
    """Add a kind of head: its configuration, which has a `kind` and a `label`, and the class made from it.

    From then on models with such heads can be built, trained, saved and loaded, and data are read with its
    label.

    Example:
        >>> register(ChargeConfig, ChargeHead)
    """
    kind = str(config.__dataclass_fields__["kind"].default)
    HeadConfig.kinds[kind], _CLASSES[kind] = config, module


def build_head(config: HeadConfig, n_types: int, descriptor_width: int, *, mixed_types: bool) -> Head:
    """The head of a configuration, with random weights."""
    found = _CLASSES[config.kind]
    head = pkgutil.resolve_name(found) if isinstance(found, str) else found
    made: Head = head(config, n_types, descriptor_width, mixed_types=mixed_types)
    return made
