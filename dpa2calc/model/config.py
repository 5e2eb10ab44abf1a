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

Activation = Literal[
    "tanh", "relu", "relu6", "softplus", "sigmoid", "silu", "gelu", "gelu_tf", "linear", "none", "silut"
]
TebdMode = Literal["concat", "strip"]
UpdateStyle = Literal["res_avg", "res_incr", "res_residual"]
NeighborRule = Literal["nearest", "all"]
Pairs = tuple[tuple[int, int], ...]


def check(condition: bool, key: str, value: Any, allowed: str) -> None:
    """Raise a ConfigError that names the option, the value seen and what is allowed."""
    if not condition:
        raise ConfigError(f"{key} = {value!r} is not allowed; allowed: {allowed}")


def check_activation(key: str, value: str) -> None:
    """Accept the names of `Activation` and `silut:<threshold>`."""
    check(value.split(":")[0] in get_args(Activation), key, value, ", ".join(get_args(Activation)))


def _check_cutoff(name: str, cutoff: float, smooth: float, nsel: int) -> None:
    check(cutoff > 0, f"{name}.cutoff", cutoff, "a length above 0 Å")
    check(0 <= smooth < cutoff, f"{name}.cutoff_smooth", smooth, f"from 0 to below the cutoff ({cutoff} Å)")
    check(nsel > 0, f"{name}.nsel", nsel, "a positive number of neighbours")


@dataclass(frozen=True, kw_only=True)
class RepinitConfig:
    """The representation initialiser of DPA-2 (paper, section 4.1; MATHS 3).

    `nsel` is the largest number of neighbours under the rule "nearest" and, under both rules, the
    constant the neighbour sum is divided by.
    """

    cutoff: float = 6.0
    cutoff_smooth: float = 0.5
    nsel: int = 120
    neuron: tuple[int, ...] = (25, 50, 100)
    axis_neuron: int = 12
    tebd_dim: int = 8
    tebd_input_mode: TebdMode = "concat"
    set_davg_zero: bool = True
    activation: str = "tanh"
    resnet_dt: bool = False
    type_one_side: bool = False

    def __post_init__(self) -> None:
        _check_cutoff("repinit", self.cutoff, self.cutoff_smooth, self.nsel)
        check_activation("repinit.activation", self.activation)
        _check_neuron("repinit", self.neuron, self.axis_neuron)


@dataclass(frozen=True, kw_only=True)
class ThreeBodyConfig:
    """The three-body part of the initialiser (MATHS 4); activation, idt and mode are those of repinit."""

    cutoff: float = 4.0
    cutoff_smooth: float = 3.5
    nsel: int = 48
    neuron: tuple[int, ...] = (2, 4, 8)

    def __post_init__(self) -> None:
        _check_cutoff("three_body", self.cutoff, self.cutoff_smooth, self.nsel)


@dataclass(frozen=True, kw_only=True)
class RepformerConfig:
    """The representation transformer (paper, section 4.1; MATHS 5 and 6)."""

    cutoff: float = 4.0
    cutoff_smooth: float = 3.5
    nsel: int = 48
    nlayers: int = 6
    g1_dim: int = 128
    g2_dim: int = 32
    axis_neuron: int = 4
    direct_dist: bool = False
    update_g1_has_conv: bool = True
    update_g1_has_drrd: bool = True
    update_g1_has_grrg: bool = True
    update_g1_has_attn: bool = True
    update_g2_has_g1g1: bool = True
    update_g2_has_attn: bool = True
    update_h2: bool = False
    attn1_hidden: int = 128
    attn1_nhead: int = 4
    attn2_hidden: int = 32
    attn2_nhead: int = 4
    attn2_has_gate: bool = False
    activation: str = "tanh"
    update_style: UpdateStyle = "res_residual"
    update_residual: float = 0.01
    update_residual_init: Literal["norm", "const"] = "norm"
    set_davg_zero: bool = True
    trainable_ln: bool = True
    use_sqrt_nnei: bool = True
    g1_out_conv: bool = True
    g1_out_mlp: bool = True
    ln_eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_cutoff("repformer", self.cutoff, self.cutoff_smooth, self.nsel)
        check_activation("repformer.activation", self.activation)
        check(self.nlayers > 0, "repformer.nlayers", self.nlayers, "at least 1")
        check(
            self.update_style in get_args(UpdateStyle),
            "repformer.update_style",
            self.update_style,
            ", ".join(get_args(UpdateStyle)),
        )


def _check_neuron(name: str, neuron: tuple[int, ...], axis: int) -> None:
    check(len(neuron) > 0 and min(neuron) > 0, f"{name}.neuron", neuron, "a list of positive widths")
    check(0 < axis <= neuron[-1], f"{name}.axis_neuron", axis, f"from 1 to the last width ({neuron[-1]})")


@dataclass(frozen=True, kw_only=True)
class DPA2Config:
    """The DPA-2 descriptor: repinit (with three-body or not) and repformers."""

    kind: Literal["dpa2"] = "dpa2"
    repinit: RepinitConfig = field(default_factory=RepinitConfig)
    three_body: ThreeBodyConfig | None = None
    repformer: RepformerConfig = field(default_factory=RepformerConfig)
    concat_output_tebd: bool = True
    smooth: bool = True
    exclude_types: Pairs = ()
    env_protection: float = 0.0
    add_tebd_to_repinit_out: bool = False
    use_econf_tebd: bool = False
    use_tebd_bias: bool = False

    def __post_init__(self) -> None:
        check(
            self.repinit.cutoff > self.repformer.cutoff,
            "repformer.cutoff",
            self.repformer.cutoff,
            f"below repinit's ({self.repinit.cutoff} Å)",
        )
        check(
            self.repinit.nsel > self.repformer.nsel,
            "repformer.nsel",
            self.repformer.nsel,
            f"below repinit's ({self.repinit.nsel})",
        )
        blocks: list[tuple[float, int]] = [(b.cutoff, b.nsel) for b in self.blocks()]
        by_cutoff, by_nsel = sorted(blocks), sorted(blocks, key=lambda b: (b[1], b[0]))
        check(
            by_cutoff == by_nsel, "nsel of the blocks", blocks, "the same order as the cutoffs of the blocks"
        )

    def blocks(self) -> tuple[Any, ...]:
        """The parts that have a cutoff and an nsel of their own."""
        return (self.repinit, self.repformer) + ((self.three_body,) if self.three_body else ())

    @property
    def cutoff(self) -> float:
        """The largest cutoff, Å."""
        return max(block.cutoff for block in self.blocks())

    @property
    def nsel(self) -> int:
        """The largest neighbour number under the rule "nearest"."""
        return max(block.nsel for block in self.blocks())

    @property
    def tebd_dim(self) -> int:
        """Width of the type embedding."""
        return self.repinit.tebd_dim


@dataclass(frozen=True, kw_only=True)
class DPA1Config:
    """The DPA-1 descriptor, with or without attention layers; se_atten_v2 is `strip` with smooth tebd."""

    kind: Literal["dpa1"] = "dpa1"
    cutoff: float = 6.0
    cutoff_smooth: float = 0.5
    nsel: int = 120
    neuron: tuple[int, ...] = (25, 50, 100)
    axis_neuron: int = 16
    tebd_dim: int = 8
    tebd_input_mode: TebdMode = "concat"
    set_davg_zero: bool = True
    attn: int = 128
    attn_layer: int = 2
    attn_dotr: bool = True
    activation: str = "tanh"
    resnet_dt: bool = False
    scaling_factor: float = 1.0
    normalize: bool = True
    temperature: float | None = None
    trainable_ln: bool = True
    ln_eps: float = 1e-5
    smooth_type_embedding: bool = True
    type_one_side: bool = True
    concat_output_tebd: bool = True
    exclude_types: Pairs = ()
    env_protection: float = 0.0
    use_econf_tebd: bool = False
    use_tebd_bias: bool = False

    def __post_init__(self) -> None:
        _check_cutoff("dpa1", self.cutoff, self.cutoff_smooth, self.nsel)
        _check_neuron("dpa1", self.neuron, self.axis_neuron)
        check_activation("dpa1.activation", self.activation)


@dataclass(frozen=True, kw_only=True)
class DeepPotSEConfig:
    """The DeepPot-SE (se_e2_a) descriptor; `sel` is one number for each type of the type map."""

    kind: Literal["deeppot_se"] = "deeppot_se"
    cutoff: float = 6.0
    cutoff_smooth: float = 0.5
    sel: tuple[int, ...] = ()
    neuron: tuple[int, ...] = (25, 50, 100)
    axis_neuron: int = 16
    set_davg_zero: bool = False
    activation: str = "tanh"
    resnet_dt: bool = False
    type_one_side: bool = True
    exclude_types: Pairs = ()
    env_protection: float = 0.0

    def __post_init__(self) -> None:
        _check_cutoff("deeppot_se", self.cutoff, self.cutoff_smooth, max(1, sum(self.sel)))
        _check_neuron("deeppot_se", self.neuron, self.axis_neuron)
        check_activation("deeppot_se.activation", self.activation)

    @property
    def nsel(self) -> int:
        """The number of neighbours of any type under the rule "nearest"."""
        return sum(self.sel)


DescriptorConfig = DPA2Config | DPA1Config | DeepPotSEConfig


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
