"""Our configuration -> deepmd-kit's model section with every option of version 3.2 written out."""

from __future__ import annotations

from typing import Any

from dpa2calc.model.config import (
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    FittingConfig,
    ModelConfig,
    ThreeBodyConfig,
)


def model_params(config: ModelConfig, head: int, *, precision: str) -> dict[str, Any]:
    """The model section of one head, as deepmd-kit writes it into its own files.

    Args:
        head: position in `config.heads`.
        precision: "float32" or "float64".
    """
    one = config.heads[head]
    params: dict[str, Any] = {
        "type_map": list(config.type_map),
        "descriptor": descriptor_params(config, precision=precision),
        "fitting_net": fitting_params(one.fitting, precision=precision),
        "data_stat_nbatch": 10,
        "data_stat_protect": 0.01,
        "data_bias_nsample": 10,
        "pair_exclude_types": [list(pair) for pair in config.pair_exclude_types],
        "atom_exclude_types": list(config.atom_exclude_types),
        "preset_out_bias": None,
        "srtab_add_bias": True,
        "type": "standard",
        "model_branch_alias": list(one.aliases),
        "info": {"observed_type": list(one.elements)} if one.elements else {},
        "bridging_method": "None",
        "bridging_r_inner": 0.5,
        "bridging_r_outer": 0.8,
    }
    if config.bridging is not None:
        params["smin_alpha"] = config.bridging.smin_alpha
        params["sw_rmin"] = config.bridging.switch_min
        params["sw_rmax"] = config.bridging.switch_max
    return params


def fitting_params(c: FittingConfig, *, precision: str) -> dict[str, Any]:
    """The fitting_net section."""
    return {
        "type": "ener",
        "neuron": list(c.neuron),
        "resnet_dt": c.resnet_dt,
        "precision": precision,
        "numb_fparam": c.numb_fparam,
        "numb_aparam": c.numb_aparam,
        "default_fparam": None if c.default_fparam is None else list(c.default_fparam),
        "dim_case_embd": c.dim_case_embd,
        "activation_function": c.activation,
        "trainable": True,
        "rcond": None,
        "atom_ener": list(c.atom_ener),
        "use_aparam_as_mask": False,
    }


def descriptor_params(config: ModelConfig, *, precision: str) -> dict[str, Any]:
    """The descriptor section."""
    c = config.descriptor
    common = {
        "precision": precision,
        "trainable": True,
        "exclude_types": [list(pair) for pair in c.exclude_types],
        "env_protection": c.env_protection,
    }
    if isinstance(c, DPA2Config):
        return {"type": "dpa2", **_dpa2(c), **common}
    if isinstance(c, DPA1Config):
        return {"type": "dpa1", **dpa1_options(c), "sel": c.nsel, "attn_mask": False, **common}
    return {"type": "se_e2_a", **deeppot_se_options(c), **common}


def deeppot_se_options(c: DeepPotSEConfig) -> dict[str, Any]:
    """Options of se_e2_a that its section and its tree share."""
    return {
        "rcut": c.cutoff,
        "rcut_smth": c.cutoff_smooth,
        "sel": list(c.sel),
        "neuron": list(c.neuron),
        "axis_neuron": c.axis_neuron,
        "activation_function": c.activation,
        "resnet_dt": c.resnet_dt,
        "type_one_side": c.type_one_side,
        "set_davg_zero": c.set_davg_zero,
    }


def dpa1_options(c: DPA1Config) -> dict[str, Any]:
    """Options of DPA-1 that its section and its tree share."""
    return {
        "rcut": c.cutoff,
        "rcut_smth": c.cutoff_smooth,
        "neuron": list(c.neuron),
        "axis_neuron": c.axis_neuron,
        "tebd_dim": c.tebd_dim,
        "tebd_input_mode": c.tebd_input_mode,
        "set_davg_zero": c.set_davg_zero,
        "attn": c.attn,
        "attn_layer": c.attn_layer,
        "attn_dotr": c.attn_dotr,
        "activation_function": c.activation,
        "resnet_dt": c.resnet_dt,
        "scaling_factor": c.scaling_factor,
        "normalize": c.normalize,
        "temperature": c.temperature,
        "trainable_ln": c.trainable_ln,
        "ln_eps": c.ln_eps,
        "smooth_type_embedding": c.smooth_type_embedding,
        "type_one_side": c.type_one_side,
        "concat_output_tebd": c.concat_output_tebd,
        "use_econf_tebd": c.use_econf_tebd,
        "use_tebd_bias": c.use_tebd_bias,
    }


def _dpa2(c: DPA2Config) -> dict[str, Any]:
    return {
        "repinit": repinit_args(c),
        "repformer": repformer_args(c),
        "concat_output_tebd": c.concat_output_tebd,
        "smooth": c.smooth,
        "add_tebd_to_repinit_out": c.add_tebd_to_repinit_out,
        "use_econf_tebd": c.use_econf_tebd,
        "use_tebd_bias": c.use_tebd_bias,
    }


def repinit_args(c: DPA2Config) -> dict[str, Any]:
    """The repinit section, three-body part included."""
    r = c.repinit
    # deepmd-kit keeps the three-body options even where there is no such part.
    unused = ThreeBodyConfig(cutoff=4.0, cutoff_smooth=0.5, nsel=40)
    three_body = c.three_body or unused
    return {
        "rcut": r.cutoff,
        "rcut_smth": r.cutoff_smooth,
        "nsel": r.nsel,
        "neuron": list(r.neuron),
        "axis_neuron": r.axis_neuron,
        "tebd_dim": r.tebd_dim,
        "tebd_input_mode": r.tebd_input_mode,
        "set_davg_zero": r.set_davg_zero,
        "activation_function": r.activation,
        "resnet_dt": r.resnet_dt,
        "type_one_side": r.type_one_side,
        "use_three_body": c.three_body is not None,
        "three_body_neuron": list(three_body.neuron),
        "three_body_sel": three_body.nsel,
        "three_body_rcut": three_body.cutoff,
        "three_body_rcut_smth": three_body.cutoff_smooth,
    }


_REPFORMER_SAME = (
    "nlayers", "g1_dim", "g2_dim", "axis_neuron", "direct_dist", "update_g1_has_conv", "update_g1_has_drrd",
    "update_g1_has_grrg", "update_g1_has_attn", "update_g2_has_g1g1", "update_g2_has_attn", "update_h2",
    "attn1_hidden", "attn1_nhead", "attn2_hidden", "attn2_nhead", "attn2_has_gate", "update_style",
    "update_residual", "update_residual_init", "set_davg_zero", "trainable_ln", "use_sqrt_nnei",
    "g1_out_conv", "g1_out_mlp", "ln_eps",
)  # fmt: skip


def repformer_args(c: DPA2Config) -> dict[str, Any]:
    """The repformer section."""
    r = c.repformer
    return {
        "rcut": r.cutoff,
        "rcut_smth": r.cutoff_smooth,
        "nsel": r.nsel,
        "activation_function": r.activation,
        **{name: getattr(r, name) for name in _REPFORMER_SAME},
    }
