"""Which array of a deepmd-kit model is which parameter of ours; one table for both directions.

The names are those below `model.<branch>.atomic_model.` in a `.pt` file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dpa2calc.model.config import DeepPotSEConfig, DPA1Config, DPA2Config
from dpa2calc.model.descriptors.deeppot_se import DeepPotSE
from dpa2calc.model.descriptors.dpa1 import DPA1
from dpa2calc.model.descriptors.dpa2 import DPA2
from dpa2calc.model.embedding import PairEmbedding
from dpa2calc.model.fitting import EnergyHead
from dpa2calc.model.layers import MLP, Dense, LayerNorm
from dpa2calc.model.potential import Potential

# How an array changes on the way: "slots" is stored once for every neighbour slot, (n_types, nsel, 4)
# for our (n_types, 4); "column" is (n_types, 1) and "bias" (1, n_types, 1) for our (n_types,).
Form = Literal["same", "slots", "column", "bias"]


@dataclass(frozen=True)
class Entry:
    """One parameter or buffer: our name within the potential, theirs, and the change of shape."""

    ours: str
    theirs: str
    form: Form = "same"
    nsel: int = 0


def descriptor_entries(potential: Potential) -> list[Entry]:
    """Entries of the descriptor, which all heads share."""
    module = potential.descriptor
    if isinstance(module, DPA2):
        return _dpa2_entries(module)
    if isinstance(module, DPA1):
        return _dpa1_entries(module)
    return _deeppot_se_entries(module)


def head_entries(potential: Potential, head: int) -> list[Entry]:
    """Entries of one head: fitting nets, parameter scales, and energy biases."""
    module, ours, theirs = potential.heads[head], f"heads.{head}.", "fitting_net."
    assert isinstance(module, EnergyHead)
    entries = []
    for k, net in enumerate(module.nets):
        entries += _mlp(net, f"{ours}nets.{k}", f"{theirs}filter_layers.networks.{k}")
    for name in ("fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std", "case_embd"):
        if getattr(module, name) is not None:
            entries.append(Entry(ours + name, theirs + name))
    entries.append(Entry(f"{ours}bias_atom_e.values", f"{theirs}bias_atom_e", "column"))
    entries.append(Entry(f"{ours}out_bias.values", "out_bias", "bias"))
    return entries


def _dense(layer: Any, ours: str, theirs: str) -> list[Entry]:
    assert isinstance(layer, Dense)
    present = [name for name in ("matrix", "bias", "idt") if getattr(layer, name) is not None]
    return [Entry(f"{ours}.{name}", f"{theirs}.{name}") for name in present]


def _mlp(net: Any, ours: str, theirs: str) -> list[Entry]:
    assert isinstance(net, MLP)
    entries = []
    for k, layer in enumerate(net.layers):
        entries += _dense(layer, f"{ours}.layers.{k}", f"{theirs}.layers.{k}")
    return entries


def _norm(layer: Any, ours: str, theirs: str) -> list[Entry]:
    assert isinstance(layer, LayerNorm)
    return [Entry(f"{ours}.weight", f"{theirs}.matrix"), Entry(f"{ours}.bias", f"{theirs}.bias")]


def _statistics(ours: str, theirs: str, nsel: int) -> list[Entry]:
    return [
        Entry(f"{ours}.environment.mean", f"{theirs}.mean", "slots", nsel),
        Entry(f"{ours}.environment.std", f"{theirs}.stddev", "slots", nsel),
    ]


def _embedding(module: PairEmbedding, ours: str, theirs: str) -> list[Entry]:
    entries = _mlp(module.net, f"{ours}.embedding.net", f"{theirs}.filter_layers.networks.0")
    if module.strip is not None:
        entries += _mlp(module.strip, f"{ours}.embedding.strip", f"{theirs}.filter_layers_strip.networks.0")
    return entries


def _type_embedding(module: DPA1 | DPA2) -> list[Entry]:
    layer = module.type_embedding.layer
    return _dense(
        layer, "descriptor.type_embedding.layer", "descriptor.type_embedding.embedding.embedding_net.layers.0"
    )


def _deeppot_se_entries(module: DeepPotSE) -> list[Entry]:
    assert isinstance(module.config, DeepPotSEConfig)
    entries = _statistics("descriptor", "descriptor.sea", module.config.nsel)
    for k, net in enumerate(module.nets):
        entries += _mlp(net, f"descriptor.nets.{k}", f"descriptor.sea.filter_layers.networks.{k}")
    return entries


def _dpa1_entries(module: DPA1) -> list[Entry]:
    assert isinstance(module.config, DPA1Config)
    ours, theirs = "descriptor.repinit", "descriptor.se_atten"
    entries = _type_embedding(module) + _statistics(ours, theirs, module.config.nsel)
    entries += _embedding(module.repinit.embedding, ours, theirs)
    layer: Any
    for k, layer in enumerate(module.repinit.attention):
        to = f"{theirs}.dpa1_attention.attention_layers.{k}"
        entries += _dense(layer.in_proj, f"{ours}.attention.{k}.in_proj", f"{to}.attention_layer.in_proj")
        entries += _dense(layer.out_proj, f"{ours}.attention.{k}.out_proj", f"{to}.attention_layer.out_proj")
        entries += _norm(layer.norm, f"{ours}.attention.{k}.norm", f"{to}.attn_layer_norm")
    return entries


def _dpa2_entries(module: DPA2) -> list[Entry]:
    c = module.config
    assert isinstance(c, DPA2Config)
    d = "descriptor"
    entries = _type_embedding(module) + _statistics(f"{d}.repinit", f"{d}.repinit", c.repinit.nsel)
    entries += _embedding(module.repinit.embedding, f"{d}.repinit", f"{d}.repinit")
    if module.three_body is not None and c.three_body is not None:
        to = f"{d}.repinit_three_body"
        entries += _statistics(f"{d}.three_body", to, c.three_body.nsel)
        entries += _embedding(module.three_body.embedding, f"{d}.three_body", to)
    if module.g1_shape is not None:  # "tranform" is deepmd-kit's spelling
        entries += _dense(module.g1_shape, f"{d}.g1_shape", f"{d}.g1_shape_tranform")
    if module.tebd_transform is not None:
        entries += _dense(module.tebd_transform, f"{d}.tebd_transform", f"{d}.tebd_transform")
    entries += _statistics(f"{d}.repformer", f"{d}.repformers", c.repformer.nsel)
    entries += _dense(module.repformer.g2_embedding, f"{d}.repformer.g2_embedding", f"{d}.repformers.g2_embd")
    for k, layer in enumerate(module.repformer.layers):
        entries += _repformer_layer(layer, f"{d}.repformer.layers.{k}", f"{d}.repformers.layers.{k}")
    return entries


def _repformer_layer(layer: Any, ours: str, theirs: str) -> list[Entry]:
    entries = []
    for name in ("linear1", "linear2", "g1_self_mlp", "proj_g1g2", "proj_g1g1g2"):
        if getattr(layer, name) is not None:
            entries += _dense(getattr(layer, name), f"{ours}.{name}", f"{theirs}.{name}")
    if layer.attn2 is not None:
        pair = layer.attn2
        entries += _dense(pair.mapqk, f"{ours}.attn2.mapqk", f"{theirs}.attn2g_map.mapqk")
        if pair.norm is not None:
            entries += _dense(pair.mapv, f"{ours}.attn2.mapv", f"{theirs}.attn2_mh_apply.mapv")
            entries += _dense(pair.head_map, f"{ours}.attn2.head_map", f"{theirs}.attn2_mh_apply.head_map")
            entries += _norm(pair.norm, f"{ours}.attn2.norm", f"{theirs}.attn2_lm")
        if pair.ev is not None:
            entries += _dense(pair.ev, f"{ours}.attn2.ev", f"{theirs}.attn2_ev_apply.head_map")
    if layer.loc_attn is not None:
        for name in ("mapq", "mapkv", "head_map"):
            entries += _dense(
                getattr(layer.loc_attn, name), f"{ours}.loc_attn.{name}", f"{theirs}.loc_attn.{name}"
            )
    for name in ("g1_residual", "g2_residual", "h2_residual"):
        vectors = getattr(layer, name)
        entries += [Entry(f"{ours}.{name}.{k}", f"{theirs}.{name}.{k}") for k in range(len(vectors))]
    return entries
