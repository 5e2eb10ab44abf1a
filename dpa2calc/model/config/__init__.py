"""Model configurations: frozen dataclasses, validated when made, to and from JSON.

Lengths are in Å. Option names follow deepmd-kit's `input.json` where the meaning is the same,
with `cutoff` and `cutoff_smooth` for `rcut` and `rcut_smth`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from ase.data import atomic_numbers

from dpa2calc.files.limits import MOST_CUTOFF, MOST_TYPES
from dpa2calc.files.typed import build as from_dict
from dpa2calc.files.typed import check_fields, to_dict
from dpa2calc.structures.graph_spec import GraphSpec

from .base import (
    Activation,
    DescriptorConfig,
    Pairs,
    TebdMode,
    check,
    check_pairs,
)
from .descriptors import (
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    EnvironmentConfig,
    RepformerConfig,
    RepinitConfig,
    ShellConfig,
    ThreeBodyConfig,
)
from .heads import FittingConfig, HeadConfig

__all__ = [
    "Activation",
    "BridgingConfig",
    "DPA1Config",
    "DPA2Config",
    "DeepPotSEConfig",
    "DescriptorConfig",
    "EnvironmentConfig",
    "FittingConfig",
    "HeadConfig",
    "ModelConfig",
    "NeighborRule",
    "Pairs",
    "RepformerConfig",
    "RepinitConfig",
    "ShellConfig",
    "TebdMode",
    "ThreeBodyConfig",
    "check",
    "from_dict",
    "to_dict",
]

NeighborRule = Literal["nearest", "all"]


@dataclass(frozen=True, kw_only=True)
class BridgingConfig:
    """Bridging to a tabulated pair potential at short distance (docs/maths.md 10); lengths in Å."""

    cutoff: float
    nsel: int
    switch_min: float
    switch_max: float
    smin_alpha: float = 0.1
    n_intervals: int = 0
    r_min: float = 0.0
    spacing: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "bridging")
        check(0 < self.cutoff <= MOST_CUTOFF, "bridging.cutoff", self.cutoff, f"0 to {MOST_CUTOFF:g} Å")
        check(self.nsel > 0, "bridging.nsel", self.nsel, "a positive number of neighbours")
        check(self.n_intervals >= 0, "bridging.n_intervals", self.n_intervals, "0 or more")
        check(self.switch_min < self.switch_max, "bridging.switch_min", self.switch_min, "below switch_max")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything needed to build a potential except its numbers.

    `neighbor_rule`: "nearest" keeps the nsel nearest neighbours (what deepmd-kit models mean);
    "all" keeps every neighbour within the cutoff and uses nsel only as the normalising constant.
    """

    type_map: tuple[str, ...]
    descriptor: DescriptorConfig
    heads: tuple[HeadConfig, ...] = (HeadConfig(),)
    neighbor_rule: NeighborRule = "all"
    pair_exclude_types: Pairs = ()
    atom_exclude_types: tuple[int, ...] = ()
    bridging: BridgingConfig | None = None
    min_neighbor_distance: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        n_types = len(self.type_map)
        check(0 < n_types <= MOST_TYPES, "type_map", self.type_map, f"1 to {MOST_TYPES} elements")
        has_element = any(symbol in atomic_numbers for symbol in self.type_map)
        allowed = "names of which at least one is an element, as nothing could be evaluated else"
        check(has_element, "type_map", self.type_map, allowed)
        check(len(set(self.type_map)) == len(self.type_map), "type_map", self.type_map, "no element twice")
        names = [head.name for head in self.heads]
        check(len(names) > 0 and len(set(names)) == len(names), "heads", names, "one or more different names")
        self.descriptor.check_in_model(n_types, self.neighbor_rule)
        self._check_types()

    def _check_types(self) -> None:
        """Every type that is named by its index must be in the type map."""
        check_pairs("pair_exclude_types", self.pair_exclude_types, self.n_types)
        lists = {"atom_exclude_types": self.atom_exclude_types}
        lists |= {f"fitting.exclude_types of head {h.name}": h.fitting.exclude_types for h in self.heads}
        for name, listed in lists.items():
            inside = all(0 <= kind < self.n_types for kind in listed)
            check(inside, name, listed, f"types from 0 to {self.n_types - 1}")
        for head in self.heads:
            energies, allowed = head.fitting.atom_ener, f"{self.n_types} energies, one per type, or none"
            fits = len(energies) in (0, self.n_types)
            check(fits, f"fitting.atom_ener of head {head.name}", energies, allowed)

    @property
    def n_types(self) -> int:
        """Number of elements in the type map."""
        return len(self.type_map)

    @property
    def cutoff(self) -> float:
        """The largest cutoff of any part, Å."""
        return max(self.descriptor.cutoff, self.bridging.cutoff if self.bridging else 0.0)

    @property
    def graph_spec(self) -> GraphSpec:
        """What the model wants of its graph."""
        blocks = {(block.cutoff, block.nsel) for block in self.descriptor.blocks()}
        if self.bridging is not None:
            blocks.add((self.bridging.cutoff, self.bridging.nsel))
        nearest = self.neighbor_rule == "nearest"
        type_sel = self.descriptor.type_sel if nearest else ()
        return GraphSpec(self.type_map, tuple(sorted(blocks)), nearest, type_sel)

    @property
    def n_arrays(self) -> int:
        """A lower bound of the arrays that a model has, counted without building it."""
        nets = 1 if self.descriptor.mixed_types else self.n_types
        in_heads = sum(head.n_arrays(nets) for head in self.heads)
        return in_heads + self.descriptor.n_arrays(self.n_types)

    def with_heads(self, heads: tuple[HeadConfig, ...]) -> ModelConfig:
        """The same model with other heads."""
        return dataclasses.replace(self, heads=heads)
