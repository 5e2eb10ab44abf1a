"""deepmd-kit's descriptor section -> our descriptor configuration."""

from __future__ import annotations

from typing import Any

from dpa2calc.deepmd.option_reader import PAIRS, Options, Reading, activation_name
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
_TEBD_BIAS = "descriptor.type_embedding.embedding.embedding_net.layers.0.bias"
_DPA1_TYPES = ("dpa1", "se_atten", "se_atten_v2")
_SE_TYPES = ("se_e2_a", "se_a")


def descriptor_config(o: Options, n_types: int, reading: Reading) -> DescriptorConfig:
    """The descriptor's options: DPA-2, DPA-1 or DeepPot-SE.

    Raises:
        CheckpointError: any other descriptor.
    """
    kind = o.need("type")
    if kind == "dpa2":
        return _dpa2(o, reading)
    if kind in _DPA1_TYPES:
        return _dpa1(o, reading)
    if kind in _SE_TYPES:
        return _deeppot_se(o, n_types, reading)
    known = ", ".join(("dpa2", *_DPA1_TYPES, "se_e2_a"))
    raise CheckpointError(f"descriptor.type = {kind!r} is not supported; supported: {known}")


def _common(o: Options) -> dict[str, Any]:
    o.refuse("use_exp_switch", (False,), "the exponential switch function is not")
    return {
        "exclude_types": o.read(PAIRS, "exclude_types", ()),
        "env_protection": o.read(float, "env_protection", 0.0),
    }


def _one_block(o: Options, reading: Reading) -> dict[str, Any]:
    """What DPA-1 and DeepPot-SE have in common."""
    has_default = reading.missing == "default"
    axis = o.read(int, "n_axis_neuron", reading.default(16, 4))
    widths = reading.default((25, 50, 100), (10, 20, 40))
    return {
        "cutoff": o.read(float, "rcut", 6.0) if has_default else o.must(float, "rcut"),
        "cutoff_smooth": o.read(float, "rcut_smth", 0.5),
        "neuron": o.read(tuple[int, ...], "neuron", widths),
        "axis_neuron": o.read(int, "axis_neuron", axis),
        "activation": activation_name(o),
        "resnet_dt": o.read(bool, "resnet_dt", False),
        **_common(o),
    }


def _deeppot_se(o: Options, n_types: int, reading: Reading) -> DeepPotSEConfig:
    o.refuse("type_embedding", (), "se_e2_a with type embedding is not")
    return DeepPotSEConfig(
        sel=_sel_of_types(o, n_types, reading),
        set_davg_zero=o.read(bool, "set_davg_zero", False),
        type_one_side=o.read(bool, "type_one_side", _has_one_side(n_types, reading)),
        **_one_block(o, reading),
    )


def _sel_of_types(o: Options, n_types: int, reading: Reading) -> tuple[int, ...]:
    """One number a type; of "auto" the arrays tell the sum only, which will do for one element."""
    sel = o.get("sel", "auto")
    if isinstance(sel, (list, tuple)):
        return o.must(tuple[int, ...], "sel")
    if isinstance(sel, str) and n_types > 1:
        reading = Reading(reading.missing)
    return (reading.n_neighbors(o, "sel", "descriptor.sea.mean"),) * n_types


def _has_one_side(n_types: int, reading: Reading) -> bool:
    """One net for each type of the neighbour, or for each pair: the nets in the file tell."""
    if reading.holds("descriptor.sea."):
        return not reading.holds(f"networks.{n_types}.")
    return bool(reading.default(True, False))


def _tebd_bias(o: Options, reading: Reading) -> bool:
    """Files older than the option have a bias (MATHS 12); whether the array is there settles it."""
    before = reading.holds(_TEBD_BIAS) if reading.arrays else reading.missing == "old"
    return bool(o.read(bool, "use_tebd_bias", before))


def _tebd_mode(o: Options, reading: Reading, *, second: bool) -> str:
    """ "concat" or "strip"; the deprecated `stripped_type_embedding` goes before `tebd_input_mode`."""
    mode = "strip" if second else o.read(str, "tebd_input_mode", "concat")
    stripped = o.read(bool, "stripped_type_embedding")
    if stripped is None:
        return str(mode)
    if reading.arrays:  # files of 3.0.0 alpha say false and mean nothing by it
        return "strip" if reading.holds("filter_layers_strip") else "concat"
    return "strip" if stripped else "concat"


def _dpa1(o: Options, reading: Reading) -> DPA1Config:
    second = o.need("type") == "se_atten_v2"
    o.refuse("attn_mask", (False,), "attention that masks its own diagonal is not")
    smooth = o.read(bool, "smooth_type_embdding", second or reading.missing == "old")  # an alias of theirs
    return DPA1Config(
        nsel=reading.n_neighbors(o, "sel", "descriptor.se_atten.mean"),
        tebd_dim=o.read(int, "tebd_dim", 8),
        tebd_input_mode=_tebd_mode(o, reading, second=second),  # type: ignore[arg-type]
        set_davg_zero=o.read(bool, "set_davg_zero", reading.default(True, not second)),
        attn=o.read(int, "attn", 128),
        attn_layer=o.read(int, "attn_layer", 2),
        attn_dotr=o.read(bool, "attn_dotr", True),
        scaling_factor=o.read(float, "scaling_factor", 1.0),
        normalize=o.read(bool, "normalize", True),
        temperature=o.read(float, "temperature"),
        trainable_ln=o.read(bool, "trainable_ln", True),
        ln_eps=o.read(float, "ln_eps", 1e-5),
        smooth_type_embedding=o.read(bool, "smooth_type_embedding", smooth),
        type_one_side=o.read(bool, "type_one_side", False),
        concat_output_tebd=o.read(bool, "concat_output_tebd", True),
        use_econf_tebd=o.read(bool, "use_econf_tebd", False),
        use_tebd_bias=_tebd_bias(o, reading),
        **_one_block(o, reading),
    )


def _dpa2(o: Options, reading: Reading) -> DPA2Config:
    repinit, repformer = _dpa2_sections(o)
    three_body = None
    if repinit.read(bool, "use_three_body", False):
        three_body = ThreeBodyConfig(
            cutoff=repinit.read(float, "three_body_rcut", 4.0),
            cutoff_smooth=repinit.read(float, "three_body_rcut_smth", 0.5),
            nsel=_three_body_sel(repinit, reading),
            neuron=repinit.read(tuple[int, ...], "three_body_neuron", (2, 4, 8)),
        )
    unknown = [f"{repinit.where}.{k}" for k in repinit.values if k not in _REPINIT]
    unknown += [f"{repformer.where}.{k}" for k in repformer.values if k not in _REPFORMER]
    for key in unknown:
        o.values[key.removeprefix("descriptor.")] = None  # listed by `unused`
    add_before = o.read(bool, "repformer_add_type_ebd_to_seq", False)
    return DPA2Config(
        repinit=_repinit(repinit, reading),
        three_body=three_body,
        repformer=_repformer(repformer, reading),
        concat_output_tebd=o.read(bool, "concat_output_tebd", True),
        smooth=o.read(bool, "smooth", True),
        add_tebd_to_repinit_out=o.read(bool, "add_tebd_to_repinit_out", add_before),
        use_econf_tebd=o.read(bool, "use_econf_tebd", False),
        use_tebd_bias=_tebd_bias(o, reading),
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


def _three_body_sel(o: Options, reading: Reading) -> int:
    return (
        40
        if o.get("three_body_sel") is None
        else reading.n_neighbors(o, "three_body_sel", "descriptor.repinit_three_body.mean")
    )


def _repinit(o: Options, reading: Reading) -> RepinitConfig:
    return RepinitConfig(
        cutoff=o.must(float, "rcut"),
        cutoff_smooth=o.must(float, "rcut_smth"),
        nsel=reading.n_neighbors(o, "nsel", "descriptor.repinit.mean"),
        neuron=o.read(tuple[int, ...], "neuron", (25, 50, 100)),
        axis_neuron=o.read(int, "axis_neuron", 16),
        tebd_dim=o.read(int, "tebd_dim", 8),
        tebd_input_mode=o.read(str, "tebd_input_mode", "concat"),
        set_davg_zero=o.read(bool, "set_davg_zero", True),
        activation=activation_name(o),
        resnet_dt=o.read(bool, "resnet_dt", False),
        type_one_side=o.read(bool, "type_one_side", False),
    )


def _repformer(o: Options, reading: Reading) -> RepformerConfig:
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
    # the arrays of one of the later options tell whether the model has them
    old = not reading.holds("g1_self_mlp") if reading.arrays else reading.missing == "old"
    flags |= {key: values[not old] for key, values in _LATER.items()}
    values = {key: o.read(bool, key, value) for key, value in flags.items()}
    values |= {key: o.read(int, key, value) for key, value in numbers.items()}
    return RepformerConfig(
        cutoff=o.must(float, "rcut"),
        cutoff_smooth=o.must(float, "rcut_smth"),
        nsel=reading.n_neighbors(o, "nsel", "descriptor.repformers.mean"),
        activation=activation_name(o),
        update_style=o.read(str, "update_style", "res_avg"),
        update_residual=o.read(float, "update_residual", 0.001),
        update_residual_init=o.read(str, "update_residual_init", "norm"),
        ln_eps=o.read(float, "ln_eps", 1e-5),
        **values,
    )
