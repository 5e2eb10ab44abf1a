"""Options and arrays -> the backend-neutral tree of `.dp` files."""

from __future__ import annotations

from dpa2calc.deepmd.params import deeppot_se_options, dpa1_options, repformer_args, repinit_args
from dpa2calc.deepmd.tree_nodes import Nodes, Tree
from dpa2calc.model.config import DeepPotSEConfig, DPA1Config, DPA2Config, RepformerConfig

_TYPE_EMBEDDING = "descriptor.type_embedding.embedding.embedding_net"


class TreeWriter(Nodes):
    """Builds the tree of one head's model."""

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
        if isinstance(c, DPA2Config):
            node = self._dpa2(c)
        elif isinstance(c, DPA1Config):
            node = self._dpa1(c)
        else:
            node = self._deeppot_se(c)
        return node | {
            "@class": "Descriptor",
            "precision": self.precision,
            "type_map": list(self.config.type_map),
            "exclude_types": [list(pair) for pair in c.exclude_types],
            "env_protection": c.env_protection,
            "trainable": True,
        }

    def _deeppot_se(self, c: DeepPotSEConfig) -> Tree:
        body = "descriptor.sea"
        return deeppot_se_options(c) | {
            "type": "se_e2_a",
            "@version": 2,
            "spin": None,
            "embeddings": self.embeddings(
                f"{body}.filter_layers", c.activation, c.resnet_dt, ndim=1 if c.type_one_side else 2
            ),
            "env_mat": self.env_mat(c.cutoff, c.cutoff_smooth),
            "@variables": self.statistics(body),
        }

    def _dpa1(self, c: DPA1Config) -> Tree:
        body = "descriptor.se_atten"
        node = dpa1_options(c) | {
            "type": "dpa1",
            "@version": 2,
            "sel": [c.nsel],
            "ntypes": self.config.n_types,
            "attn_mask": False,
            "spin": None,
            "embeddings": self.embeddings(f"{body}.filter_layers", c.activation, c.resnet_dt),
            "attention_layers": self._neighbor_attention(c),
            "env_mat": self.env_mat(c.cutoff, c.cutoff_smooth),
            "type_embedding": self._type_embedding(c),
            "@variables": self.statistics(body),
        }
        if c.tebd_input_mode == "strip":
            node["embeddings_strip"] = self.embeddings(
                f"{body}.filter_layers_strip", c.activation, c.resnet_dt
            )
        return node

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
            attention = shared | {
                "num_heads": 1,
                "bias": True,
                "smooth": c.smooth_type_embedding,
                "in_proj": self.layer(f"{at}.attention_layer.in_proj"),
                "out_proj": self.layer(f"{at}.attention_layer.out_proj"),
            }
            layer_norm = self.layer_norm(f"{at}.attn_layer_norm", c.ln_eps, c.trainable_ln)
            layers.append(shared | norm | {"attention_layer": attention, "attn_layer_norm": layer_norm})
        return (
            shared
            | norm
            | {
                "@class": "NeighborGatedAttention",
                "@version": 1,
                "layer_num": c.attn_layer,
                "attention_layers": layers,
            }
        )

    def _dpa2(self, c: DPA2Config) -> Tree:
        node: Tree = {
            "type": "dpa2",
            "@version": 3,
            "ntypes": self.config.n_types,
            "repinit_args": repinit_args(c),
            "repformer_args": repformer_args(c),
            "concat_output_tebd": c.concat_output_tebd,
            "smooth": c.smooth,
            "add_tebd_to_repinit_out": c.add_tebd_to_repinit_out,
            "use_econf_tebd": c.use_econf_tebd,
            "use_tebd_bias": c.use_tebd_bias,
            "type_embedding": self._type_embedding(c),
            "g1_shape_tranform": {"@class": "Identity", "@version": 1},
            "repinit_variable": self._embedding_block(
                "repinit", c, c.repinit.cutoff, c.repinit.cutoff_smooth
            ),
            "repformers_variable": self._repformers(c),
        }
        if "descriptor.g1_shape_tranform.matrix" in self.arrays:
            node["g1_shape_tranform"] = self.layer("descriptor.g1_shape_tranform")
        if c.add_tebd_to_repinit_out:
            node["tebd_transform"] = self.layer("descriptor.tebd_transform")
        if c.three_body is not None:
            node["repinit_three_body_variable"] = self._embedding_block(
                "repinit_three_body", c, c.three_body.cutoff, c.three_body.cutoff_smooth
            )
        return node

    def _embedding_block(self, name: str, c: DPA2Config, cutoff: float, smooth: float) -> Tree:
        at, r = f"descriptor.{name}", c.repinit
        node = {
            "embeddings": self.embeddings(f"{at}.filter_layers", r.activation, r.resnet_dt),
            "env_mat": self.env_mat(cutoff, smooth),
            "@variables": self.statistics(at),
        }
        if r.tebd_input_mode == "strip":
            node["embeddings_strip"] = self.embeddings(f"{at}.filter_layers_strip", r.activation, r.resnet_dt)
        return node

    def _repformers(self, c: DPA2Config) -> Tree:
        at = "descriptor.repformers"
        return {
            "g2_embd": self.layer(f"{at}.g2_embd"),
            "repformer_layers": [self._repformer_layer(c, k) for k in range(c.repformer.nlayers)],
            "env_mat": self.env_mat(c.repformer.cutoff, c.repformer.cutoff_smooth),
            "@variables": self.statistics(at),
        }

    def _repformer_layer(self, c: DPA2Config, k: int) -> Tree:
        r, at = c.repformer, f"descriptor.repformers.layers.{k}"
        last = k == r.nlayers - 1
        node = repformer_args(c) | {
            "@class": "RepformerLayer",
            "@version": 2,
            "sel": [r.nsel],
            "ntypes": self.config.n_types,
            "update_chnnl_2": not last,
            "smooth": c.smooth,
            "precision": self.precision,
        }
        block_only = ("nsel", "nlayers", "direct_dist", "set_davg_zero")
        for name in (*block_only, "update_residual", "update_residual_init"):
            del node[name]
        for name in ("update_g2_has_g1g1", "update_g2_has_attn", "update_h2"):
            node[name] = node[name] and not last
        for name in ("linear1", "linear2", "proj_g1g2", "proj_g1g1g2", "g1_self_mlp"):
            if f"{at}.{name}.matrix" in self.arrays:
                node[name] = self.layer(f"{at}.{name}")
        node |= self._pair_attention(r, at, smooth=c.smooth)
        if f"{at}.loc_attn.mapq.matrix" in self.arrays:
            node["loc_attn"] = {
                "@class": "LocalAtten",
                "@version": 1,
                "input_dim": r.g1_dim,
                "hidden_dim": r.attn1_hidden,
                "head_num": r.attn1_nhead,
                "smooth": c.smooth,
                "attnw_shift": 20.0,
                "precision": self.precision,
                **{name: self.layer(f"{at}.loc_attn.{name}") for name in ("mapq", "mapkv", "head_map")},
            }
        if r.update_style == "res_residual":
            node["@variables"] = {
                name: self.list_of(f"{at}.{name}") for name in ("g1_residual", "g2_residual", "h2_residual")
            }
        return node

    def _pair_attention(self, r: RepformerConfig, at: str, *, smooth: bool) -> Tree:
        if f"{at}.attn2g_map.mapqk.matrix" not in self.arrays:
            return {}
        shared: Tree = {"@version": 1, "input_dim": r.g2_dim, "head_num": r.attn2_nhead}
        shared["precision"] = self.precision
        node: Tree = {
            "attn2g_map": shared
            | {
                "@class": "Atten2Map",
                "hidden_dim": r.attn2_hidden,
                "has_gate": r.attn2_has_gate,
                "smooth": smooth,
                "attnw_shift": 20.0,
                "mapqk": self.layer(f"{at}.attn2g_map.mapqk"),
            }
        }
        if r.update_g2_has_attn:
            node["attn2_mh_apply"] = shared | {
                "@class": "Atten2MultiHeadApply",
                "mapv": self.layer(f"{at}.attn2_mh_apply.mapv"),
                "head_map": self.layer(f"{at}.attn2_mh_apply.head_map"),
            }
            node["attn2_lm"] = self.layer_norm(f"{at}.attn2_lm", r.ln_eps, r.trainable_ln)
        if r.update_h2:
            node["attn2_ev_apply"] = shared | {
                "@class": "Atten2EquiVarApply",
                "head_map": self.layer(f"{at}.attn2_ev_apply.head_map"),
            }
        return node

    def fitting(self) -> Tree:
        """The node of the fitting net."""
        c = self.config.heads[self.head].fitting
        mixed = not isinstance(self.config.descriptor, DeepPotSEConfig)
        at = "fitting_net"
        nets = [
            self.network(f"{at}.filter_layers.networks.{k}", c.activation, c.resnet_dt, out_dim=1)
            for k in range(1 if mixed else self.config.n_types)
        ]
        n_extra = c.numb_fparam + c.numb_aparam + c.dim_case_embd
        scales = ("fparam_avg", "fparam_inv_std", "aparam_avg", "aparam_inv_std")
        variables = ("bias_atom_e", "case_embd", *scales)
        return {
            "@class": "Fitting",
            "@version": 4,
            "type": "ener",
            "var_name": "energy",
            "dim_out": 1,
            "ntypes": self.config.n_types,
            "dim_descrpt": nets[0]["in_dim"] - n_extra,
            "neuron": list(c.neuron),
            "resnet_dt": c.resnet_dt,
            "numb_fparam": c.numb_fparam,
            "numb_aparam": c.numb_aparam,
            "dim_case_embd": c.dim_case_embd,
            "default_fparam": None if c.default_fparam is None else list(c.default_fparam),
            "activation_function": c.activation,
            "precision": self.precision,
            "mixed_types": mixed,
            "nets": self.collection(nets, "fitting_network", ndim=0 if mixed else 1),
            "rcond": None,
            "exclude_types": list(self.config.atom_exclude_types),
            "@variables": {name: self.arrays.get(f"{at}.{name}") for name in variables},
            "type_map": list(self.config.type_map),
            "tot_ener_zero": False,
            "trainable": [True] * (len(c.neuron) + 1),
            "layer_name": None,
            "use_aparam_as_mask": False,
            "spin": None,
            "atom_ener": list(c.atom_ener),
        }

    def _type_embedding(self, c: DPA1Config | DPA2Config) -> Tree:
        embedding = self.network(_TYPE_EMBEDDING, "Linear", False)
        return {
            "@class": "TypeEmbedNet",
            "@version": 2,
            "ntypes": self.config.n_types,
            "neuron": [c.tebd_dim],
            "resnet_dt": False,
            "precision": self.precision,
            "activation_function": "Linear",
            "trainable": True,
            "padding": True,
            "use_econf_tebd": c.use_econf_tebd,
            "use_tebd_bias": c.use_tebd_bias,
            "type_map": list(self.config.type_map),
            "embedding": embedding,
        }
