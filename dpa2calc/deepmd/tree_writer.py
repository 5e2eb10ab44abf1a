"""Options and arrays -> the backend-neutral tree of `.dp` files; `tree` has the names and the way back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dpa2calc.model.bridging import Bridging
from dpa2calc.model.config import (
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    FittingConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ShellConfig,
)

from .arrays import table_arrays, table_values
from .branch import Tree
from .model_section import descriptor_params, fitting_params
from .schema import BRIDGING, REPFORMER
from .tree import ARRAY_NAMES, PARTS

_TYPE_EMBEDDING = "descriptor.type_embedding.embedding.embedding_net"
# Options of the repformer section that its layers do not have, and those that the last one is without.
_OF_BLOCK = ("nsel", "nlayers", "direct_dist", "set_davg_zero", "update_residual", "update_residual_init")
_WITHOUT_LAST = ("update_g2_has_g1g1", "update_g2_has_attn", "update_h2")
_Net = RepinitConfig | DPA1Config | DeepPotSEConfig | FittingConfig


@dataclass(frozen=True)
class TreeWriter:
    """Builds the tree of one head's model from its arrays (those of `branch_arrays`)."""

    config: ModelConfig
    head: int
    arrays: dict[str, Tensor]
    precision: str

    def model(self) -> Tree:
        """The node of the standard energy model."""
        return self._model_head() | {
            "type": "standard",
            "atom_exclude_types": list(self.config.atom_exclude_types),
            "pair_exclude_types": [list(pair) for pair in self.config.pair_exclude_types],
            "@variables": {name: self.arrays[name] for name in ("out_bias", "out_std")},
            "descriptor": self.descriptor(),
            "fitting": self.fitting(),
        }

    def bridged(self, bridging: Bridging) -> Tree:
        """The node of the model and a pair table (docs/maths.md 10); the energy bias is that of the whole."""
        model = self.model()
        spread = self.arrays["out_std"]
        inner = {"out_bias": torch.zeros_like(spread), "out_std": torch.ones_like(spread)}
        alone = self._model_head() | {"@variables": inner}
        kept = ("@variables", "atom_exclude_types", "pair_exclude_types")
        return (
            alone
            | BRIDGING.write(bridging.config)
            | {name: model[name] for name in kept}
            | {"type": "zbl", "models": [model | alone, alone | _table(bridging)], "weights": "mean"}
        )

    def _model_head(self) -> Tree:
        return {
            "@class": "Model",
            "@version": 2,
            "type_map": list(self.config.type_map),
            "atom_exclude_types": [],
            "pair_exclude_types": [],
            "rcond": None,
            "preset_out_bias": None,
        }

    def descriptor(self) -> Tree:
        """The node of the descriptor."""
        c = self.config.descriptor
        nodes: dict[str, Callable[..., Tree]] = {
            "dpa2": self._dpa2,
            "dpa1": self._dpa1,
            "deeppot_se": self._deeppot_se,
        }
        node = descriptor_params(c, precision=self.precision)
        for name in ("repinit", "repformer"):
            if name in node:
                node[f"{name}_args"] = node.pop(name)
        return node | {"@class": "Descriptor", "type_map": list(self.config.type_map)} | nodes[c.kind](c)

    def _deeppot_se(self, c: DeepPotSEConfig) -> Tree:
        ndim = 1 if c.type_one_side else 2
        return {"@version": 2, "spin": None} | self._block("descriptor.sea", c, c, ndim=ndim)

    def _dpa1(self, c: DPA1Config) -> Tree:
        return {
            "@version": 2,
            "sel": [c.nsel],
            "ntypes": self.config.n_types,
            "spin": None,
            "attention_layers": self._neighbor_attention(c),
            "type_embedding": self._type_embedding(c),
        } | self._block("descriptor.se_atten", c, c)

    def _neighbor_attention(self, c: DPA1Config) -> Tree:
        shared = {
            "nnei": c.nsel,
            "embed_dim": c.neuron[-1],
            "hidden_dim": c.attn,
            "dotr": c.attn_dotr,
            "do_mask": False,
            "scaling_factor": c.scaling_factor,
            "normalize": c.normalize,
            "temperature": c.temperature,
            "precision": self.precision,
        }
        norm = {"trainable_ln": c.trainable_ln, "ln_eps": c.ln_eps}
        layers = []
        for k in range(c.attn_layer):
            at = f"descriptor.se_atten.dpa1_attention.attention_layers.{k}"
            attention = shared | {"num_heads": 1, "bias": True, "smooth": c.smooth_type_embedding}
            attention |= self._layers(f"{at}.attention_layer", "in_proj", "out_proj")
            layer_norm = self._layer_norm(f"{at}.attn_layer_norm", c.ln_eps, c.trainable_ln)
            layers.append(shared | norm | {"attention_layer": attention, "attn_layer_norm": layer_norm})
        whole = {"@class": "NeighborGatedAttention", "@version": 1, "layer_num": c.attn_layer}
        return shared | norm | whole | {"attention_layers": layers}

    def _dpa2(self, c: DPA2Config) -> Tree:
        at = f"descriptor.{PARTS['repformers_variable']}"
        node: Tree = {
            "@version": 3,
            "ntypes": self.config.n_types,
            "type_embedding": self._type_embedding(c),
            "g1_shape_tranform": {"@class": "Identity", "@version": 1},
            "repformers_variable": self._layers(at, "g2_embd")
            | {"repformer_layers": [self._repformer_layer(c, k) for k in range(c.repformer.nlayers)]}
            | self._environment(at, c.repformer),
        }
        node |= self._layers("descriptor", "g1_shape_tranform", "tebd_transform")
        for key, shell in (("repinit_variable", c.repinit), ("repinit_three_body_variable", c.three_body)):
            if shell is not None:
                node[key] = self._block(f"descriptor.{PARTS[key]}", shell, c.repinit)
        return node

    def _repformer_layer(self, c: DPA2Config, k: int) -> Tree:
        r, at = c.repformer, f"descriptor.repformers.layers.{k}"
        last = k == r.nlayers - 1
        node = {key: value for key, value in REPFORMER.write(r).items() if key not in _OF_BLOCK}
        node |= {key: node[key] and not last for key in _WITHOUT_LAST}
        node |= self._node("RepformerLayer", 2) | {
            "sel": [r.nsel],
            "ntypes": self.config.n_types,
            "update_chnnl_2": not last,
            "smooth": c.smooth,
        }
        node |= self._layers(at, "linear1", "linear2", "proj_g1g2", "proj_g1g1g2", "g1_self_mlp")
        node |= self._attentions(r, at, smooth=c.smooth)
        if r.update_style == "res_residual":
            vectors = ("g1_residual", "g2_residual", "h2_residual")
            node["@variables"] = {
                name: [self.arrays[one] for one in self._numbered(f"{at}.{name}")] for name in vectors
            }
        return node

    def _attentions(self, r: RepformerConfig, at: str, *, smooth: bool) -> Tree:
        soft: Tree = {"smooth": smooth, "attnw_shift": 20.0}
        pair: Tree = {"input_dim": r.g2_dim, "head_num": r.attn2_nhead}
        local: Tree = {"input_dim": r.g1_dim, "head_num": r.attn1_nhead, "hidden_dim": r.attn1_hidden}
        weights: Tree = pair | {"hidden_dim": r.attn2_hidden, "has_gate": r.attn2_has_gate}
        nodes: dict[str, Tree] = {
            "loc_attn": self._node("LocalAtten", 1) | local | soft,
            "attn2g_map": self._node("Atten2Map", 1) | weights | soft,
            "attn2_mh_apply": self._node("Atten2MultiHeadApply", 1) | pair,
            "attn2_ev_apply": self._node("Atten2EquiVarApply", 1) | pair,
        }
        found: Tree = {}
        for name, node in nodes.items():
            layers = self._layers(f"{at}.{name}", "mapq", "mapkv", "mapqk", "mapv", "head_map")
            if layers:
                found[name] = node | layers
        if "attn2_mh_apply" in found:
            found["attn2_lm"] = self._layer_norm(f"{at}.attn2_lm", r.ln_eps, r.trainable_ln)
        return found

    def fitting(self) -> Tree:
        """The node of the fitting net."""
        c = self.config.heads[self.head].fitting
        at = "fitting_net"
        nets = self._networks(f"{at}.{PARTS['nets']}", c, out_dim=1)
        mixed = self.config.descriptor.kind != "deeppot_se"
        scales = ("fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std")
        return fitting_params(c, precision=self.precision) | {
            "@class": "Fitting",
            "@version": 4,
            "var_name": "energy",
            "dim_out": 1,
            "ntypes": self.config.n_types,
            "dim_descrpt": nets[0]["in_dim"] - c.numb_fparam - c.numb_aparam - c.dim_case_embd,
            "mixed_types": mixed,
            "nets": self._collection(nets, "fitting_network", ndim=0 if mixed else 1),
            "exclude_types": list(self.config.atom_exclude_types),
            "@variables": self._variables(at, "bias_atom_e", "case_embd", *scales),
            "type_map": list(self.config.type_map),
            "tot_ener_zero": False,
            "trainable": [True] * (len(c.neuron) + 1),
            "layer_name": None,
            "spin": None,
        }

    def _type_embedding(self, c: DPA1Config | DPA2Config) -> Tree:
        return self._node("TypeEmbedNet", 2) | {
            "ntypes": self.config.n_types,
            "neuron": [c.tebd_dim],
            "resnet_dt": False,
            "activation_function": "Linear",
            "trainable": True,
            "padding": True,
            "use_econf_tebd": c.use_econf_tebd,
            "use_tebd_bias": c.use_tebd_bias,
            "type_map": list(self.config.type_map),
            "embedding": self._network(_TYPE_EMBEDDING, "Linear", False),
        }

    def _environment(self, at: str, shell: ShellConfig) -> Tree:
        """The environment matrix and its statistics."""
        return {
            "env_mat": {
                "rcut": shell.cutoff,
                "rcut_smth": shell.cutoff_smooth,
                "protection": vars(self.config.descriptor)["env_protection"],
                "use_exp_switch": False,
            },
            "@variables": self._variables(at, "davg", "dstd"),
        }

    def _block(self, at: str, shell: ShellConfig, net: _Net, *, ndim: int = 0) -> Tree:
        """An environment matrix and the embedding networks that there are."""
        node = self._environment(at, shell)
        for key in ("embeddings", "embeddings_strip"):
            nets = self._networks(f"{at}.{PARTS[key]}", net)
            if nets:
                node[key] = self._collection(nets, "embedding_network", ndim=ndim)
        return node

    def _collection(self, nets: list[Tree], kind: str, *, ndim: int) -> Tree:
        return {
            "@class": "NetworkCollection",
            "@version": 1,
            "ndim": ndim,
            "ntypes": self.config.n_types,
            "network_type": kind,
            "networks": nets,
        }

    def _networks(self, at: str, c: _Net, *, out_dim: int | None = None) -> list[Tree]:
        """All networks of a collection."""
        nets = self._numbered(f"{at}.networks", ".layers.0.matrix")
        return [self._network(net, c.activation, c.resnet_dt, out_dim=out_dim) for net in nets]

    def _network(self, at: str, activation: str, resnet_dt: bool, *, out_dim: int | None = None) -> Tree:
        """An embedding network, or a fitting network when it has an `out_dim`."""
        names = self._numbered(f"{at}.layers", ".matrix")
        layers = [self._layer(name, activation, resnet=True) for name in names]
        widths = [int(layer["@variables"]["w"].shape[1]) for layer in layers]
        node: Tree = {
            "in_dim": int(layers[0]["@variables"]["w"].shape[0]),
            "activation_function": activation,
            "resnet_dt": resnet_dt,
            "layers": layers,
        }
        if out_dim is None:
            node |= {"neuron": widths, "bias": layers[0]["bias"]}
            return self._node("EmbeddingNetwork", 2) | node
        layers[-1] |= {"activation_function": "none", "resnet": False}
        node |= {"neuron": widths[:-1], "out_dim": out_dim, "bias_out": True}
        return self._node("FittingNetwork", 1) | node

    def _layers(self, at: str, *names: str) -> Tree:
        """The dense layers of these names that there are."""
        return {name: self._layer(f"{at}.{name}") for name in names if f"{at}.{name}.matrix" in self.arrays}

    def _layer(self, at: str, activation: str = "none", *, resnet: bool = False) -> Tree:
        variables = self._variables(at, "w", "b", "idt")
        options = {"activation_function": activation, "resnet": resnet, "trainable": True}
        present = {"bias": variables["b"] is not None, "use_timestep": variables["idt"] is not None}
        return self._node("Layer", 2) | options | present | {"@variables": variables}

    def _layer_norm(self, at: str, eps: float, trainable: bool) -> Tree:
        options = {"eps": eps, "trainable": trainable}
        return self._node("LayerNorm", 1) | options | {"@variables": self._variables(at, "w", "b")}

    def _node(self, kind: str, version: int) -> Tree:
        return {"@class": kind, "@version": version, "precision": self.precision}

    def _variables(self, at: str, *names: str) -> Tree:
        return {name: self.arrays.get(f"{at}.{ARRAY_NAMES.get(name, name)}") for name in names}

    def _numbered(self, at: str, array: str = "") -> list[str]:
        """The names `at`.0, `at`.1, ... of which there is an array, or one called `array` within."""
        names = (f"{at}.{k}" for k in itertools.count())
        return list(itertools.takewhile(lambda name: name + array in self.arrays, names))


def _table(bridging: Bridging) -> Tree:
    """The node of a pair table, without its head and energy bias."""
    c, values, arrays = bridging.config, table_values(bridging), table_arrays(bridging)
    return {
        "type": "pairtab",
        "rcut": c.cutoff,
        "sel": c.nsel,
        "tab": {
            "@class": "PairTab",
            "@version": 1,
            "rmin": c.r_min,
            "rmax": float(values[-1, 0]),
            "hh": c.spacing,
            "ntypes": len(bridging.coefficients),
            "rcut": c.cutoff,
            "nspline": c.n_intervals,
            "@variables": {
                "vdata": values,
                "tab_info": arrays["tab_info"],
                "tab_data": arrays["tab_data"].reshape(-1),
            },
        },
    }
