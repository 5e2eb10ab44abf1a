"""Configurations of the descriptors: DPA-2 with its parts, DPA-1, DeepPot-SE; see `config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from dpa2calc.files.limits import MOST_LAYERS
from dpa2calc.files.typed import check_fields

from .base import (
    Block,
    DescriptorConfig,
    Pairs,
    TebdMode,
    UpdateStyle,
    check,
    check_activation,
    check_cutoff,
    check_neuron,
    check_pairs,
    check_width,
    check_widths,
)


@dataclass(frozen=True, kw_only=True)
class _EmbeddedShell:
    """What repinit and DPA-1 share: a sum over neighbours with an embedding net.

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

    def _check_shell(self, name: str) -> None:
        check_fields(self, name)
        check_cutoff(name, self.cutoff, self.cutoff_smooth, self.nsel)
        check_activation(f"{name}.activation", self.activation)
        check_neuron(name, self.neuron, self.axis_neuron)
        check_width(f"{name}.tebd_dim", self.tebd_dim)

    def _check_padding(self, name: str, neighbor_rule: str, *, smooth: bool) -> None:
        """Refuse padding slots that count by a type, which is not that of the neighbour that left."""
        without_type = self.tebd_input_mode == "strip" and smooth
        allowed = (
            "true under the rule 'all', but with 'strip' and smooth (the energy would jump at the cutoff)"
        )
        check(neighbor_rule != "all" or self.set_davg_zero or without_type, name, False, allowed)


@dataclass(frozen=True, kw_only=True)
class RepinitConfig(_EmbeddedShell):
    """The representation initialiser of DPA-2 (docs/maths.md 3)."""

    def __post_init__(self) -> None:
        self._check_shell("repinit")


@dataclass(frozen=True, kw_only=True)
class ThreeBodyConfig:
    """The three-body part (docs/maths.md 4); activation, idt and mode are those of repinit."""

    cutoff: float = 4.0
    cutoff_smooth: float = 3.5
    nsel: int = 48
    neuron: tuple[int, ...] = (2, 4, 8)

    def __post_init__(self) -> None:
        check_fields(self, "three_body")
        check_cutoff("three_body", self.cutoff, self.cutoff_smooth, self.nsel)
        check_widths("three_body.neuron", self.neuron)


_ATTENTION = ("attn1_hidden", "attn1_nhead", "attn2_hidden", "attn2_nhead")


@dataclass(frozen=True, kw_only=True)
class RepformerConfig:
    """The representation transformer (docs/maths.md 5 and 6)."""

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
        check_fields(self, "repformer")
        check_cutoff("repformer", self.cutoff, self.cutoff_smooth, self.nsel)
        check_activation("repformer.activation", self.activation)
        check(0 < self.nlayers <= MOST_LAYERS, "repformer.nlayers", self.nlayers, f"1 to {MOST_LAYERS}")
        for name in ("g1_dim", "g2_dim", "axis_neuron", *_ATTENTION):
            check_width(f"repformer.{name}", getattr(self, name))
        conv = self.update_g1_has_conv and not self.g1_out_conv
        mapped = conv or self.update_g1_has_drrd or self.update_g1_has_grrg or not self.g1_out_mlp
        allowed = (
            "false, where update_g1_has_drrd and update_g1_has_grrg are false and nothing is left to map"
        )
        check(mapped, "repformer.g1_out_mlp", self.g1_out_mlp, allowed)


@dataclass(frozen=True, kw_only=True)
class EnvironmentConfig(DescriptorConfig):
    """A descriptor made of environment matrices (docs/maths.md 1), whose options hold for all its parts."""

    exclude_types: Pairs = ()
    env_protection: float = 0.0

    @property
    def padding_counts(self) -> bool:
        """Whether statistics may have a mean, so that empty slots count."""
        return not getattr(self, "set_davg_zero", True)

    def check_in_model(self, n_types: int, neighbor_rule: str) -> None:
        """Excluded types must be types; where all neighbours count, nothing may jump at the cutoff."""
        check(self.env_protection >= 0, "descriptor.env_protection", self.env_protection, "0 or more")
        check_pairs("descriptor.exclude_types", self.exclude_types, n_types)
        # An excluded neighbour takes an empty slot, and nothing comes in its place.
        jumps = neighbor_rule == "all" and self.padding_counts and bool(self.exclude_types)
        allowed = (
            "none under the rule 'all' without set_davg_zero, as the energy would jump at the cutoff; "
            "exclude pairs by pair_exclude_types of the model"
        )
        check(not jumps, "descriptor.exclude_types", self.exclude_types, allowed)


@dataclass(frozen=True, kw_only=True)
class DPA2Config(EnvironmentConfig):
    """The DPA-2 descriptor: repinit (with three-body or not) and repformers."""

    title: ClassVar[str] = "DPA-2"

    kind: Literal["dpa2"] = "dpa2"
    repinit: RepinitConfig = field(default_factory=RepinitConfig)
    three_body: ThreeBodyConfig | None = None
    repformer: RepformerConfig = field(default_factory=RepformerConfig)
    concat_output_tebd: bool = True
    smooth: bool = True
    add_tebd_to_repinit_out: bool = False
    use_econf_tebd: bool = False
    use_tebd_bias: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "dpa2")
        i, f = self.repinit, self.repformer
        check(i.cutoff > f.cutoff, "repformer.cutoff", f.cutoff, f"below repinit's ({i.cutoff} Å)")
        check(i.nsel > f.nsel, "repformer.nsel", f.nsel, f"below repinit's ({i.nsel})")
        blocks = [(b.cutoff, b.nsel) for b in self.blocks()]
        in_order = sorted(blocks) == sorted(blocks, key=lambda b: (b[1], b[0]))
        check(in_order, "nsel of the blocks", blocks, "the same order as the cutoffs of the blocks")

    def blocks(self) -> tuple[Block, ...]:
        """Repinit, the repformers, and the three-body part where there is one."""
        i, f, t = self.repinit, self.repformer, self.three_body
        blocks = (
            Block("repinit", i.cutoff, i.nsel),
            Block("repformer", f.cutoff, f.nsel, {"layers": f.nlayers}),
        )
        return (*blocks, Block("three_body", t.cutoff, t.nsel)) if t else blocks

    def check_in_model(self, n_types: int, neighbor_rule: str) -> None:
        """As for DPA-1."""
        super().check_in_model(n_types, neighbor_rule)
        self.repinit._check_padding("repinit.set_davg_zero", neighbor_rule, smooth=self.smooth)

    def n_arrays(self, n_types: int) -> int:
        """Layers of the embedding net and of the repformers."""
        return len(self.repinit.neuron) + self.repformer.nlayers

    @property
    def cutoff(self) -> float:
        """The largest cutoff, Å."""
        return max(block.cutoff for block in self.blocks())

    @property
    def padding_counts(self) -> bool:
        """Those of repinit; in the repformer they never do."""
        return not self.repinit.set_davg_zero

    @property
    def nsel(self) -> int:
        """The largest neighbour number under the rule "nearest"."""
        return max(block.nsel for block in self.blocks())

    @property
    def tebd_dim(self) -> int:
        """Width of the type embedding."""
        return self.repinit.tebd_dim


@dataclass(frozen=True, kw_only=True)
class DPA1Config(_EmbeddedShell, EnvironmentConfig):
    """The DPA-1 descriptor, with or without attention layers; se_atten_v2 is `strip` with smooth tebd."""

    title: ClassVar[str] = "DPA-1"

    kind: Literal["dpa1"] = "dpa1"
    axis_neuron: int = 16
    attn: int = 128
    attn_layer: int = 2
    attn_dotr: bool = True
    scaling_factor: float = 1.0
    normalize: bool = True
    temperature: float | None = None
    trainable_ln: bool = True
    ln_eps: float = 1e-5
    smooth_type_embedding: bool = True
    type_one_side: bool = True
    concat_output_tebd: bool = True
    use_econf_tebd: bool = False
    use_tebd_bias: bool = False

    def __post_init__(self) -> None:
        self._check_shell("dpa1")
        if self.attn_layer:
            check_width("dpa1.attn", self.attn)
        check(0 <= self.attn_layer <= MOST_LAYERS, "dpa1.attn_layer", self.attn_layer, f"0 to {MOST_LAYERS}")

    def blocks(self) -> tuple[Block, ...]:
        """The one block."""
        return (Block("descriptor", self.cutoff, self.nsel, {"attention_layers": self.attn_layer}),)

    def n_arrays(self, n_types: int) -> int:
        """Layers of the embedding net and of attention."""
        return len(self.neuron) + self.attn_layer

    def check_in_model(self, n_types: int, neighbor_rule: str) -> None:
        """Excluded types must be types, and no padding slot may count where all neighbours do."""
        super().check_in_model(n_types, neighbor_rule)
        self._check_padding("set_davg_zero", neighbor_rule, smooth=self.smooth_type_embedding)


@dataclass(frozen=True, kw_only=True)
class DeepPotSEConfig(EnvironmentConfig):
    """The DeepPot-SE (se_e2_a) descriptor; `sel` is one number for each type of the type map."""

    title: ClassVar[str] = "DeepPot-SE"
    mixed_types: ClassVar[bool] = False

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

    def __post_init__(self) -> None:
        check_fields(self, "deeppot_se")
        check(all(n >= 0 for n in self.sel), "deeppot_se.sel", self.sel, "0 or more neighbours of each type")
        check_cutoff("deeppot_se", self.cutoff, self.cutoff_smooth, max(1, sum(self.sel)))
        check_neuron("deeppot_se", self.neuron, self.axis_neuron)
        check_activation("deeppot_se.activation", self.activation)

    @property
    def nsel(self) -> int:
        """The number of neighbours of any type under the rule "nearest"."""
        return sum(self.sel)

    @property
    def type_sel(self) -> tuple[int, ...]:
        """Neighbours of each type are counted apart."""
        return self.sel

    def n_arrays(self, n_types: int) -> int:
        """Layers of all embedding nets."""
        return len(self.neuron) * n_types ** (1 if self.type_one_side else 2)

    def check_in_model(self, n_types: int, neighbor_rule: str) -> None:
        """Excluded types must be types, and `sel` has a number for each."""
        super().check_in_model(n_types, neighbor_rule)
        fits = len(self.sel) == n_types and self.nsel > 0
        check(fits, "descriptor.sel", self.sel, f"{n_types} numbers, one a type, not all of them 0")


ShellConfig = RepinitConfig | ThreeBodyConfig | RepformerConfig | DPA1Config | DeepPotSEConfig

DescriptorConfig.kinds.update(
    {
        "dpa2": DPA2Config,
        "dpa1": DPA1Config,
        "deeppot_se": DeepPotSEConfig,
    }
)
