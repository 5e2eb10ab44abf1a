"""deepmd-kit's descriptor section -> our descriptor configuration."""

from __future__ import annotations

from typing import Any

from dpa2calc.deepmd.section import Missing, Options, activation_name, pairs
from dpa2calc.errors import CheckpointError
from dpa2calc.model.config import (
    DeepPotSEConfig,
    DescriptorConfig,
    DPA1Config,
    DPA2Config,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)

# Options of DPA-2 that came with 3.0.0rc0: their value before that, and today's default.
_LATER: dict[str, tuple[bool, bool]] = {
    "use_sqrt_nnei": (False, True),
    "g1_out_conv": (False, True),
    "g1_out_mlp": (False, True),
}
_REPINIT = {
    "rcut", "rcut_smth", "nsel", "neuron", "axis_neuron", "tebd_dim", "tebd_input_mode", "set_davg_zero",
    "activation_function", "resnet_dt", "type_one_side", "use_three_body", "three_body_neuron",
    "three_body_sel", "three_body_rcut", "three_body_rcut_smth",
}  # fmt: skip
_REPFORMER = {
    "rcut", "rcut_smth", "nsel", "nlayers", "g1_dim", "g2_dim", "axis_neuron", "direct_dist",
    "update_g1_has_conv", "update_g1_has_drrd", "update_g1_has_grrg", "update_g1_has_attn",
    "update_g2_has_g1g1", "update_g2_has_attn", "update_h2", "attn1_hidden", "attn1_nhead", "attn2_hidden",
    "attn2_nhead", "attn2_has_gate", "activation_function", "update_style", "update_residual",
    "update_residual_init", "set_davg_zero", "trainable_ln", "use_sqrt_nnei", "g1_out_conv", "g1_out_mlp",
    "ln_eps",
}  # fmt: skip
_DPA1_TYPES = ("dpa1", "se_atten", "se_atten_v2")
_SE_TYPES = ("se_e2_a", "se_a")


def descriptor_config(
    o: Options, n_types: int, *, missing: Missing, tebd_bias: bool | None = None
) -> DescriptorConfig:
    """The descriptor's options: DPA-2, DPA-1 or DeepPot-SE.

    Raises:
        CheckpointError: any other descriptor.
    """
    kind = o.need("type")
    if kind == "dpa2":
        return _dpa2(o, missing, tebd_bias)
    if kind in _DPA1_TYPES:
        return _dpa1(o, missing, tebd_bias)
    if kind in _SE_TYPES:
        return _deeppot_se(o, n_types)
    known = ", ".join(("dpa2", *_DPA1_TYPES, "se_e2_a"))
    raise CheckpointError(f"descriptor.type = {kind!r} is not supported; supported: {known}")


def _common(o: Options) -> dict[str, Any]:
    o.refuse("use_exp_switch", (False,), "the exponential switch function is not")
    return {
        "exclude_types": pairs(o.get("exclude_types", ())),
        "env_protection": float(o.get("env_protection", 0.0)),
    }


def _deeppot_se(o: Options, n_types: int) -> DeepPotSEConfig:
    o.refuse("type_embedding", (), "se_e2_a with type embedding is not")
    sel = o.need("sel")
    return DeepPotSEConfig(
        cutoff=float(o.need("rcut")),
        cutoff_smooth=float(o.get("rcut_smth", 0.5)),
        sel=tuple(map(int, sel)) if isinstance(sel, (list, tuple)) else (int(sel),) * n_types,
        neuron=tuple(o.get("neuron", (10, 20, 40))),
        axis_neuron=int(o.get("axis_neuron", o.get("n_axis_neuron", 4))),
        set_davg_zero=bool(o.get("set_davg_zero", False)),
        activation=activation_name(o),
        resnet_dt=bool(o.get("resnet_dt", False)),
        type_one_side=bool(o.get("type_one_side", False)),
        **_common(o),
    )


def _tebd_bias(o: Options, missing: Missing, given: bool | None) -> bool:
    """Files older than the option have a bias (MATHS 12); whether the array is there settles it."""
    before = given if given is not None else missing == "old"
    return bool(o.get("use_tebd_bias", before))


def _dpa1(o: Options, missing: Missing, tebd_bias: bool | None) -> DPA1Config:
    second = o.need("type") == "se_atten_v2"
    o.refuse("attn_mask", (False,), "attention that masks its own diagonal is not")
    sel = o.need("sel")
    mode = "strip" if second or o.get("stripped_type_embedding") else "concat"
    temperature = o.get("temperature")
    return DPA1Config(
        cutoff=float(o.need("rcut")),
        cutoff_smooth=float(o.get("rcut_smth", 0.5)),
        nsel=sum(map(int, sel)) if isinstance(sel, (list, tuple)) else int(sel),
        neuron=tuple(o.get("neuron", (10, 20, 40))),
        axis_neuron=int(o.get("axis_neuron", o.get("n_axis_neuron", 4))),
        tebd_dim=int(o.get("tebd_dim", 8)),
        tebd_input_mode=o.get("tebd_input_mode", mode),
        set_davg_zero=bool(o.get("set_davg_zero", not second)),
        attn=int(o.get("attn", 128)),
        attn_layer=int(o.get("attn_layer", 2)),
        attn_dotr=bool(o.get("attn_dotr", True)),
        activation=activation_name(o),
        resnet_dt=bool(o.get("resnet_dt", False)),
        scaling_factor=float(o.get("scaling_factor", 1.0)),
        normalize=bool(o.get("normalize", True)),
        temperature=None if temperature is None else float(temperature),
        trainable_ln=bool(o.get("trainable_ln", True)),
        ln_eps=float(o.get("ln_eps", 1e-5)),
        smooth_type_embedding=bool(o.get("smooth_type_embedding", second)),
        type_one_side=bool(o.get("type_one_side", False)),
        concat_output_tebd=bool(o.get("concat_output_tebd", True)),
        use_econf_tebd=bool(o.get("use_econf_tebd", False)),
        use_tebd_bias=_tebd_bias(o, missing, tebd_bias),
        **_common(o),
    )


def _dpa2(o: Options, missing: Missing, tebd_bias: bool | None) -> DPA2Config:
    repinit, repformer = _dpa2_sections(o)
    three_body = None
    if repinit.get("use_three_body", False):
        three_body = ThreeBodyConfig(
            cutoff=float(repinit.get("three_body_rcut", 4.0)),
            cutoff_smooth=float(repinit.get("three_body_rcut_smth", 0.5)),
            nsel=int(repinit.get("three_body_sel", 40)),
            neuron=tuple(repinit.get("three_body_neuron", (2, 4, 8))),
        )
    unknown = [f"{repinit.where}.{k}" for k in repinit.values if k not in _REPINIT]
    unknown += [f"{repformer.where}.{k}" for k in repformer.values if k not in _REPFORMER]
    for key in unknown:
        o.values[key.removeprefix("descriptor.")] = None  # listed by `unused`
    return DPA2Config(
        repinit=_repinit(repinit),
        three_body=three_body,
        repformer=_repformer(repformer, missing),
        concat_output_tebd=bool(o.get("concat_output_tebd", True)),
        smooth=bool(o.get("smooth", True)),
        add_tebd_to_repinit_out=bool(
            o.get("add_tebd_to_repinit_out", o.get("repformer_add_type_ebd_to_seq", False))
        ),
        use_econf_tebd=bool(o.get("use_econf_tebd", False)),
        use_tebd_bias=_tebd_bias(o, missing, tebd_bias),
        **_common(o),
    )


def _dpa2_sections(o: Options) -> tuple[Options, Options]:
    """The repinit and repformer sections; the oldest files keep them flat, with prefixed keys."""
    if o.get("repinit") is not None:
        return Options(o.need("repinit"), "descriptor.repinit"), Options(
            o.need("repformer"), "descriptor.repformer"
        )
    sections = []
    for prefix in ("repinit_", "repformer_"):
        section = {k.removeprefix(prefix): v for k, v in o.values.items() if k.startswith(prefix)}
        section.pop("add_type_ebd_to_seq", None)  # an option of the whole descriptor
        o.used.update(k for k in o.values if k.startswith(prefix))
        if "activation" in section:
            section["activation_function"] = section.pop("activation")
        sections.append(section)
    for key in ("tebd_dim", "tebd_input_mode", "type_one_side", "resnet_dt"):
        if o.get(key) is not None:
            sections[0].setdefault(key, o.get(key))
    if "rcut" not in sections[0]:
        raise CheckpointError("the descriptor has neither `repinit` and `repformer` nor `repinit_rcut`")
    return Options(sections[0], "descriptor.repinit"), Options(sections[1], "descriptor.repformer")


def _repinit(o: Options) -> RepinitConfig:
    return RepinitConfig(
        cutoff=float(o.need("rcut")),
        cutoff_smooth=float(o.need("rcut_smth")),
        nsel=_one(o.need("nsel")),
        neuron=tuple(o.get("neuron", (25, 50, 100))),
        axis_neuron=int(o.get("axis_neuron", 16)),
        tebd_dim=int(o.get("tebd_dim", 8)),
        tebd_input_mode=o.get("tebd_input_mode", "concat"),
        set_davg_zero=bool(o.get("set_davg_zero", True)),
        activation=activation_name(o),
        resnet_dt=bool(o.get("resnet_dt", False)),
        type_one_side=bool(o.get("type_one_side", False)),
    )


def _repformer(o: Options, missing: Missing) -> RepformerConfig:
    flags: dict[str, Any] = {
        "direct_dist": False, "update_g1_has_conv": True, "update_g1_has_drrd": True,
        "update_g1_has_grrg": True, "update_g1_has_attn": True, "update_g2_has_g1g1": True,
        "update_g2_has_attn": True, "update_h2": False, "attn2_has_gate": False, "set_davg_zero": True,
        "trainable_ln": True,
    }  # fmt: skip
    numbers: dict[str, Any] = {
        "nlayers": 3, "g1_dim": 128, "g2_dim": 16, "axis_neuron": 4, "attn1_hidden": 64, "attn1_nhead": 4,
        "attn2_hidden": 16, "attn2_nhead": 4,
    }  # fmt: skip
    later: dict[str, Any] = {
        key: bool(o.get(key, values[missing == "default"])) for key, values in _LATER.items()
    }
    values: dict[str, Any] = later | {
        **{key: bool(o.get(key, value)) for key, value in flags.items()},
        **{key: int(o.get(key, value)) for key, value in numbers.items()},
    }
    return RepformerConfig(
        cutoff=float(o.need("rcut")),
        cutoff_smooth=float(o.need("rcut_smth")),
        nsel=_one(o.need("nsel")),
        activation=activation_name(o),
        update_style=o.get("update_style", "res_avg"),
        update_residual=float(o.get("update_residual", 0.001)),
        update_residual_init=o.get("update_residual_init", "norm"),
        ln_eps=float(o.get("ln_eps", 1e-5)),
        **values,
    )


def _one(value: Any) -> int:
    """nsel as a number; older files write a list with one number."""
    return int(sum(value)) if isinstance(value, (list, tuple)) else int(value)
