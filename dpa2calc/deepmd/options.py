"""deepmd-kit's model section <-> our configuration.

Two readings of a missing option exist. In an `input.json` it has deepmd-kit 3.2's default. In a model
file it means that the file is older than the option, and so what the model did before (MATHS 12).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpa2calc.deepmd.descriptor_options import descriptor_config
from dpa2calc.deepmd.section import Missing, Options, activation_name, pairs
from dpa2calc.model.config import BridgingConfig, DescriptorConfig, FittingConfig, HeadConfig, ModelConfig

# Without meaning for the numbers of a trained model; an `input.json` reader reports them as ignored.
_NEUTRAL = {
    "seed", "trainable", "ntypes", "rcond", "tot_ener_zero", "dim_descrpt", "mixed_types", "var_name",
    "dim_out", "type_map", "num_case", "data_stat_nbatch", "data_stat_protect", "data_bias_nsample",
    "preset_out_bias", "srtab_add_bias", "bridging_r_inner", "bridging_r_outer", "spin",
    "stripped_type_embedding", "type", "precision",
}  # fmt: skip


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


def fitting_config(o: Options) -> FittingConfig:
    """The energy fitting net's options."""
    o.refuse("type", ("ener",), "only energy fitting nets are")
    o.refuse("use_aparam_as_mask", (False,), "atomic parameters as a mask are not")
    o.refuse("layer_name", (), "fitting nets that share layers by name are not")
    o.get("exclude_types")  # deepmd-kit overwrites it with the model's atom_exclude_types
    default = o.get("default_fparam")
    return FittingConfig(
        neuron=tuple(o.get("neuron", o.get("n_neuron", (120, 120, 120)))),
        activation=activation_name(o),
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
