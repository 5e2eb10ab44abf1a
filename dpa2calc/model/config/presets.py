"""Descriptor configurations by name: the paper's, the official small/medium/large, DPA-1, DeepPot-SE."""

from __future__ import annotations

from collections.abc import Callable

from dpa2calc.errors import ConfigError
from dpa2calc.model.config import (
    DeepPotSEConfig,
    DescriptorConfig,
    DPA1Config,
    DPA2Config,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)


def _paper() -> DPA2Config:
    """The paper's model (section S9): 12 layers, every update, averaged residuals."""
    return DPA2Config(
        repinit=RepinitConfig(cutoff=9.0, cutoff_smooth=8.0, nsel=120),
        repformer=RepformerConfig(
            nsel=40,
            nlayers=12,
            attn2_has_gate=True,
            update_style="res_avg",
            use_sqrt_nnei=False,
            g1_out_conv=False,
            g1_out_mlp=False,
        ),
    )


def _official(nlayers: int, *, pair_attention: bool, strip: bool = False) -> DPA2Config:
    """deepmd-kit's small, medium, large and compressible examples."""
    return DPA2Config(
        repinit=RepinitConfig(tebd_input_mode="strip" if strip else "concat"),
        three_body=ThreeBodyConfig(),
        repformer=RepformerConfig(
            nlayers=nlayers,
            update_g1_has_attn=False,
            update_g2_has_g1g1=False,
            update_g2_has_attn=pair_attention,
            attn2_has_gate=True,
        ),
    )


_PRESETS: dict[str, Callable[[int], DescriptorConfig]] = {
    "paper": lambda n: _paper(),
    "small": lambda n: _official(3, pair_attention=False),
    "medium": lambda n: _official(6, pair_attention=True),
    "large": lambda n: _official(12, pair_attention=True),
    "compressible": lambda n: _official(3, pair_attention=False, strip=True),
    "dpa1-l0": lambda n: DPA1Config(attn_layer=0, axis_neuron=12),
    "dpa1": lambda n: DPA1Config(attn_layer=2),
    "deeppot-se": lambda n: DeepPotSEConfig(sel=tuple([max(1, 138 // n)] * n)),
}


def preset_names() -> tuple[str, ...]:
    """All names that `preset` knows."""
    return tuple(_PRESETS)


def preset(name: str, type_map: tuple[str, ...]) -> ModelConfig:
    """A model configuration by name, for the given elements, with one head.

    Raises:
        ConfigError: no preset of that name.
    """
    if name not in _PRESETS:
        raise ConfigError(f"no preset {name!r}; there are {', '.join(_PRESETS)}")
    return ModelConfig(type_map=tuple(type_map), descriptor=_PRESETS[name](len(type_map)))
