"""deepmd-kit's model section <-> our configuration.

Two readings of a missing option exist. In an `input.json` it has deepmd-kit 3.2's default. In a model
file it means that the file is older than the option, and so what the model did before (MATHS 12).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from dpa2calc.errors import CheckpointError
from dpa2calc.model.config import (
    BridgingConfig,
    DeepPotSEConfig,
    DescriptorConfig,
    DPA1Config,
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)

logger = logging.getLogger(__name__)

Missing = Literal["old", "default"]  # what an absent option means

# Options of DPA-2 that came with 3.0.0rc0: their value before that, and today's default.
_LATER: dict[str, tuple[bool, bool]] = {
    "use_sqrt_nnei": (False, True),
    "g1_out_conv": (False, True),
    "g1_out_mlp": (False, True),
}
# Without meaning for the numbers of a trained model; an `input.json` reader reports them as ignored.
_NEUTRAL = {
    "seed", "trainable", "ntypes", "rcond", "tot_ener_zero", "dim_descrpt", "mixed_types", "var_name",
    "dim_out", "type_map", "num_case", "data_stat_nbatch", "data_stat_protect", "data_bias_nsample",
    "preset_out_bias", "srtab_add_bias", "bridging_r_inner", "bridging_r_outer", "spin",
    "stripped_type_embedding", "type", "precision",
}  # fmt: skip
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


class Options:
    """A section of options that remembers which of its keys have been asked for."""

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where, self.used = dict(values), where, set[str]()

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where the key is missing or null."""
        self.used.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def need(self, key: str) -> Any:
        """The value of an option that has no default."""
        self.used.add(key)
        if self.values.get(key) is None:
            raise CheckpointError(f"{self.where} has no {key!r}; the file is not complete")
        return self.values[key]

    def refuse(self, key: str, allowed: Iterable[Any], why: str) -> None:
        """Raise for a value that this package has no code for."""
        self.used.add(key)
        value = self.values.get(key)
        if value is not None and value not in tuple(allowed):
            raise CheckpointError(f"{self.where}.{key} = {value!r} is not supported: {why}")

    def unused(self, neutral: Iterable[str] = ()) -> list[str]:
        """Keys that nobody asked for, with their place."""
        known = self.used | set(neutral)
        return [f"{self.where}.{key}" for key in self.values if key not in known and not key.startswith("_")]


def model_config(
    params: Mapping[str, Any],
    *,
    name: str = "Default",
    missing: Missing = "old",
    tebd_bias: bool | None = None,
    min_neighbor_distance: float | None = None,
) -> tuple[ModelConfig, list[str]]:
    """Configuration with one head from the model section of one branch.

    Args:
        params: `type_map`, `descriptor`, `fitting_net`, ...
        name: name of the head.
        missing: what an absent option means.
        tebd_bias: whether the type embedding has a bias, for files that do not say so.

    Returns:
        The configuration, and the keys that were not understood.

    Raises:
        CheckpointError: the model is of a kind that is not supported.
    """
    model = Options(params, "model")
    model.refuse("type", ("standard", "ener", "zbl"), "only energy models are")
    model.refuse("bridging_method", ("None", "none"), "only the bridging of `use_srtab` is")
    model.refuse("spin", (), "models with spin are not")
    model.refuse("modifier", (), "data modifiers are not")
    type_map = tuple(model.need("type_map"))
    raw = Options(model.need("descriptor"), "descriptor")
    descriptor = descriptor_config(raw, len(type_map), missing=missing, tebd_bias=tebd_bias)
    fitting_options = Options(model.need("fitting_net"), "fitting_net")
    info = model.get("info", {})
    head = HeadConfig(
        name=name,
        aliases=tuple(model.get("model_branch_alias", ())),
        elements=tuple(info.get("observed_type") or ()),
        fitting=fitting_config(fitting_options),
        info={key: value for key, value in info.items() if key != "observed_type"},
    )
    config = ModelConfig(
        type_map=type_map,
        descriptor=descriptor,
        heads=(head,),
        neighbor_rule="nearest",
        pair_exclude_types=pairs(model.get("pair_exclude_types", ())),
        atom_exclude_types=tuple(model.get("atom_exclude_types", ())),
        bridging=_bridging(model, descriptor),
        min_neighbor_distance=min_neighbor_distance,
    )
    neutral = _NEUTRAL if missing == "old" else {"precision", "type"}
    return config, [key for options in (model, raw, fitting_options) for key in options.unused(neutral)]


def _bridging(model: Options, descriptor: DescriptorConfig) -> BridgingConfig | None:
    keys = ("smin_alpha", "sw_rmin", "sw_rmax")
    alpha, low, high = (model.get(key) for key in keys)
    if model.get("use_srtab") is None:
        return None
    return BridgingConfig(
        cutoff=descriptor.cutoff,
        nsel=descriptor.nsel,
        switch_min=float(low),
        switch_max=float(high),
        smin_alpha=0.1 if alpha is None else float(alpha),
    )


def pairs(values: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
    """Excluded type pairs as tuples."""
    return tuple((int(a), int(b)) for a, b in values)


def fitting_config(o: Options) -> FittingConfig:
    """The energy fitting net's options."""
    o.refuse("type", ("ener",), "only energy fitting nets are")
    o.refuse("use_aparam_as_mask", (False,), "atomic parameters as a mask are not")
    o.refuse("layer_name", (), "fitting nets that share layers by name are not")
    o.get("exclude_types")  # deepmd-kit overwrites it with the model's atom_exclude_types
    default = o.get("default_fparam")
    return FittingConfig(
        neuron=tuple(o.get("neuron", o.get("n_neuron", (120, 120, 120)))),
        activation=_activation(o),
        resnet_dt=bool(o.get("resnet_dt", True)),
        numb_fparam=int(o.get("numb_fparam", 0)),
        numb_aparam=int(o.get("numb_aparam", 0)),
        dim_case_embd=int(o.get("dim_case_embd", 0)),
        default_fparam=None if default is None else tuple(map(float, default)),
        atom_ener=tuple(_energy(entry) for entry in o.get("atom_ener", ())),
    )


def _energy(entry: Any) -> float | None:
    """One element's vacuum energy; deepmd-kit writes a number, a list with one number, or null."""
    if isinstance(entry, (list, tuple)):
        entry = entry[0] if entry else None
    return None if entry is None else float(entry)


def _activation(o: Options) -> str:
    name = str(o.get("activation_function", "tanh"))
    return name if ":" in name else name.lower()


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
        activation=_activation(o),
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
        activation=_activation(o),
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
        activation=_activation(o),
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
        activation=_activation(o),
        update_style=o.get("update_style", "res_avg"),
        update_residual=float(o.get("update_residual", 0.001)),
        update_residual_init=o.get("update_residual_init", "norm"),
        ln_eps=float(o.get("ln_eps", 1e-5)),
        **values,
    )


def _one(value: Any) -> int:
    """nsel as a number; older files write a list with one number."""
    return int(sum(value)) if isinstance(value, (list, tuple)) else int(value)
