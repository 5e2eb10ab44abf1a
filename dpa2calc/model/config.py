"""Model configurations: frozen dataclasses, validated when made, to and from JSON.

Lengths are in Å. Option names follow deepmd-kit's `input.json` where the meaning is the same,
with `cutoff` and `cutoff_smooth` for `rcut` and `rcut_smth`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dpa2calc.errors import ConfigError
from dpa2calc.model.descriptor_config import (
    Activation,
    DeepPotSEConfig,
    DescriptorConfig,
    DPA1Config,
    DPA2Config,
    Pairs,
    RepformerConfig,
    RepinitConfig,
    TebdMode,
    ThreeBodyConfig,
    UpdateStyle,
    check,
    check_activation,
)

__all__ = [
    "Activation",
    "BridgingConfig",
    "DPA1Config",
    "DPA2Config",
    "DeepPotSEConfig",
    "DescriptorConfig",
    "FittingConfig",
    "HeadConfig",
    "ModelConfig",
    "NeighborRule",
    "Pairs",
    "RepformerConfig",
    "RepinitConfig",
    "TebdMode",
    "ThreeBodyConfig",
    "UpdateStyle",
    "check",
    "check_activation",
    "from_dict",
    "to_dict",
]

NeighborRule = Literal["nearest", "all"]


@dataclass(frozen=True, kw_only=True)
class FittingConfig:
    """The energy fitting net (paper, section 4.2; MATHS 7)."""

    neuron: tuple[int, ...] = (240, 240, 240)
    activation: str = "tanh"
    resnet_dt: bool = True
    numb_fparam: int = 0
    numb_aparam: int = 0
    dim_case_embd: int = 0
    default_fparam: tuple[float, ...] | None = None
    exclude_types: tuple[int, ...] = ()
    # vacuum removal: one entry a type, an energy (eV) or None; empty = not removed
    atom_ener: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        check(len(self.neuron) > 0 and min(self.neuron) > 0, "fitting.neuron", self.neuron, "positive widths")
        check_activation("fitting.activation", self.activation)


@dataclass(frozen=True, kw_only=True)
class BridgingConfig:
    """Bridging to a tabulated pair potential at short distance (MATHS 10); lengths in Å."""

    cutoff: float
    nsel: int
    switch_min: float
    switch_max: float
    smin_alpha: float = 0.1
    n_intervals: int = 0
    r_min: float = 0.0
    spacing: float = 0.0

    def __post_init__(self) -> None:
        check(self.switch_min < self.switch_max, "bridging.switch_min", self.switch_min, "below switch_max")


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """One head: its name, what is known of its training data, and its fitting net.

    `elements` are those seen in training (empty: not known); `info` holds JSON-able extras such as
    test errors, data sources and licences.
    """

    name: str = "Default"
    aliases: tuple[str, ...] = ()
    description: str = ""
    functional: str = ""
    elements: tuple[str, ...] = ()
    fitting: FittingConfig = field(default_factory=FittingConfig)
    info: dict[str, Any] = field(default_factory=dict, hash=False)


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
        check(len(self.type_map) > 0, "type_map", self.type_map, "at least one element")
        check(len(set(self.type_map)) == len(self.type_map), "type_map", self.type_map, "no element twice")
        names = [head.name for head in self.heads]
        check(len(names) > 0 and len(set(names)) == len(names), "heads", names, "one or more different names")
        check(
            self.neighbor_rule in get_args(NeighborRule),
            "neighbor_rule",
            self.neighbor_rule,
            "nearest, all",
        )
        d = self.descriptor
        if isinstance(d, DeepPotSEConfig):
            check(len(d.sel) == self.n_types, "descriptor.sel", d.sel, f"{self.n_types} numbers, one a type")
        pad_is_neighbor = isinstance(d, DPA1Config) and not d.set_davg_zero and d.tebd_input_mode == "concat"
        check(
            not (self.neighbor_rule == "all" and pad_is_neighbor),
            "set_davg_zero",
            False,
            "true with tebd_input_mode 'concat' under the rule 'all' (the energy would jump at the cutoff)",
        )

    @property
    def n_types(self) -> int:
        """Number of elements in the type map."""
        return len(self.type_map)

    @property
    def cutoff(self) -> float:
        """The largest cutoff of any part, Å."""
        return max(self.descriptor.cutoff, self.bridging.cutoff if self.bridging else 0.0)

    def with_heads(self, heads: tuple[HeadConfig, ...]) -> ModelConfig:
        """The same model with other heads."""
        return dataclasses.replace(self, heads=heads)


def to_dict(config: Any) -> Any:
    """A configuration as plain dicts and lists, ready for JSON."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, (tuple, list)):
        return [to_dict(item) for item in config]
    if isinstance(config, dict):
        return {key: to_dict(item) for key, item in config.items()}
    return config


_KINDS = {"dpa2": DPA2Config, "dpa1": DPA1Config, "deeppot_se": DeepPotSEConfig}


def from_dict(cls: Any, values: dict[str, Any]) -> Any:
    """Build a configuration from plain dicts; unknown keys are an error naming the nearest right key."""
    if cls is DescriptorConfig:
        kind = values.get("kind")
        check(kind in _KINDS, "descriptor.kind", kind, ", ".join(_KINDS))
        cls = _KINDS[str(kind)]
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"unknown key {key!r} in {cls.__name__}{hint} Allowed: {', '.join(hints)}")
    return cls(**{key: _convert(hints[key], value) for key, value in values.items()})


def _convert(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if hint == DescriptorConfig or dataclasses.is_dataclass(hint):
        return from_dict(hint, value)
    arguments = get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [a for a in arguments if a is not type(None)]
        return _convert(inner[0], value) if len(inner) == 1 else value
    if typing.get_origin(hint) is tuple:
        return tuple(_convert(arguments[0], item) for item in value)
    return float(value) if hint is float else value
