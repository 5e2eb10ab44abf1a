"""Descriptors of atoms: what every one must say of itself, and the registry of their classes by kind."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from dpa2calc.model.config import DescriptorConfig
from dpa2calc.model.layers import Operator
from dpa2calc.model.neighborhood import Environment, Neighborhood

if TYPE_CHECKING:
    from collections.abc import Callable

    from dpa2calc.model.layers import MLP

# Where the class of each kind is; imported when a model of this kind is built.
_CLASSES: dict[str, str | type[Descriptor]] = {
    "dpa2": "dpa2calc.model.descriptors.dpa2:DPA2",
    "dpa1": "dpa2calc.model.descriptors.dpa1:DPA1",
    "deeppot_se": "dpa2calc.model.descriptors.deeppot_se:DeepPotSE",
}


@dataclass(frozen=True)
class TabulatedPart:
    """A sum over neighbours whose embedding nets, functions of one number each, can become tables.

    Attributes:
        owner: the module whose attribute `tabulated` takes the tables.
        environment: of the sum; the nets see the first column of its rows.
        nets: a net, and what follows the number in its input, (lines, n); a table for every line of each.
        lines: (n_types, n_types) number of the table for a centre (row) and a neighbour.
        channels, axis: size of the moments, and how many of their channels are contracted with all.
        padding: of the type of a structure's first atom: embedding of an empty slot, (n_types, sections,
            channels), where a section is a neighbour type that has an nsel of its own.
        smooth: whether the switch multiplies `factors`.
        factors: (n_types, n_types, channels) that strip mode multiplies the embedding with, or None.
    """

    owner: nn.Module
    environment: Environment
    nets: list[tuple[MLP, Tensor]] = field(repr=False)
    lines: Tensor
    channels: int
    axis: int
    padding: Callable[[int], Tensor]
    smooth: bool = False
    factors: Tensor | None = None


class Descriptor(Operator):
    """Representation of every atom; a subclass is made from its configuration and the type map.

    `message_passing`: whether it reaches beyond the pair vectors of the atom itself. `freezable`: name of the
    `ModuleList` whose first layers fine-tuning may freeze, or "".
    """

    message_passing: ClassVar[bool] = False
    freezable: ClassVar[str] = ""
    config: DescriptorConfig

    def __init__(self, config: DescriptorConfig, type_map: tuple[str, ...]):
        super().__init__()
        self.config, self.n_types = config, len(type_map)

    @property
    def width(self) -> int:
        """Number of components of the descriptor."""
        raise NotImplementedError

    def forward(self, hood: Neighborhood) -> Tensor:
        """(n_atoms, width)"""
        raise NotImplementedError

    def appended(self) -> Tensor | None:
        """What follows the contracted moments in the representation of each type, (n_types, n), or None."""
        return None

    def why_not_tabulated(self) -> str | None:
        """Why no embedding net of it can become a table, or None where `tabulated_part` has one."""
        title = self.config.title or self.config.kind
        return (
            f"{title} has no embedding net that can be tabulated; DPA-1 without attention layers, DeepPot-SE "
            "and DPA-2 have one"
        )

    def tabulated_part(self) -> TabulatedPart:
        """The sum over neighbours that can be tabulated; only where `why_not_tabulated` is None."""
        raise NotImplementedError


def register(config: type[DescriptorConfig], module: type[Descriptor]) -> None:
    """Add a descriptor: its configuration, which has a `kind`, and the class that is made from it.

    From then on models of this kind can be built, trained, saved and loaded.

    Example:
        >>> register(RadialConfig, Radial)
    """
    kind = str(config.__dataclass_fields__["kind"].default)
    DescriptorConfig.kinds[kind], _CLASSES[kind] = config, module


def build_descriptor(config: DescriptorConfig, type_map: tuple[str, ...]) -> Descriptor:
    """The descriptor of a configuration, with random weights."""
    found = _CLASSES[config.kind]
    made: Descriptor = (pkgutil.resolve_name(found) if isinstance(found, str) else found)(config, type_map)
    return made
