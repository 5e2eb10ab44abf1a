"""deepmd-kit's model section <-> our configuration.

Two readings of a missing option exist. In an `input.json` it has deepmd-kit 3.2's default there. In a model
file deepmd-kit's class is made without it and takes its own default, which is another one for some options;
and where the file is older than the option, it means what the model did before (MATHS 12).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpa2calc.deepmd.descriptor_options import descriptor_config
from dpa2calc.deepmd.option_reader import PAIRS, Options, Reading, activation_name
from dpa2calc.errors import CheckpointError
from dpa2calc.files.typed import typed
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
    reading: Reading | None = None,
    min_neighbor_distance: float | None = None,
) -> tuple[ModelConfig, list[str]]:
    """Configuration with one head from the model section of one branch.

    Args:
        params: `type_map`, `descriptor`, `fitting_net`, ...
        name: name of the head.
        reading: what an absent option means, and the arrays of the file; None: in a file without any.

    Returns:
        The configuration, and the keys that were not understood.

    Raises:
        CheckpointError: the model is of a kind that is not supported.
    """
    reading = reading or Reading()
    model = Options(params, "model")
    model.refuse("type", ("standard", "ener", "zbl"), "only energy models are")
    model.refuse("bridging_method", ("None", "none"), "only the bridging of `use_srtab` is")
    model.refuse("spin", (), "models with spin are not")
    model.refuse("modifier", (), "data modifiers are not")
    type_map = typed(tuple[str, ...], model.need("type_map"), "model.type_map")
    raw = Options(model.need("descriptor"), "descriptor")
    descriptor = descriptor_config(raw, len(type_map), reading)
    # a class takes an empty section for a missing one, an `input.json` must have it
    fitting = model.get("fitting_net", {}) if reading.missing == "old" else model.need("fitting_net")
    fitting_options = Options(fitting, "fitting_net")
    info = model.read(dict[str, Any], "info", {})
    head = HeadConfig(
        name=name,
        aliases=model.read(tuple[str, ...], "model_branch_alias", ()),
        elements=Options(info, "model.info").read(tuple[str, ...], "observed_type", ()),
        fitting=fitting_config(fitting_options, reading),
        info={key: value for key, value in info.items() if key != "observed_type"},
    )
    config = ModelConfig(
        type_map=type_map,
        descriptor=descriptor,
        heads=(head,),
        neighbor_rule="nearest",
        pair_exclude_types=model.read(PAIRS, "pair_exclude_types", ()),
        atom_exclude_types=model.read(tuple[int, ...], "atom_exclude_types", ()),
        bridging=_bridging(model, descriptor),
        min_neighbor_distance=min_neighbor_distance,
    )
    neutral = _NEUTRAL if reading.missing == "old" else {"precision", "type"}
    return config, [key for options in (model, raw, fitting_options) for key in options.unused(neutral)]


def _bridging(model: Options, descriptor: DescriptorConfig) -> BridgingConfig | None:
    alpha = model.read(float, "smin_alpha", 0.1)
    low, high = (model.read(float, key) for key in ("sw_rmin", "sw_rmax"))
    if model.get("use_srtab") is None:
        return None
    if low is None or high is None:
        raise CheckpointError("the model has a pair table (use_srtab), but no sw_rmin and sw_rmax")
    return BridgingConfig(
        cutoff=descriptor.cutoff,
        nsel=descriptor.nsel,
        switch_min=low,
        switch_max=high,
        smin_alpha=alpha,
    )


def fitting_config(o: Options, reading: Reading) -> FittingConfig:
    """The energy fitting net's options."""
    o.refuse("type", ("ener",), "only energy fitting nets are")
    o.refuse("use_aparam_as_mask", (False,), "atomic parameters as a mask are not")
    o.refuse("layer_name", (), "fitting nets that share layers by name are not")
    o.get("exclude_types")  # deepmd-kit overwrites it with the model's atom_exclude_types
    widths = o.read(tuple[int, ...], "n_neuron", reading.default((128,) * 3, (120,) * 3))
    return FittingConfig(
        neuron=o.read(tuple[int, ...], "neuron", widths),
        activation=activation_name(o),
        resnet_dt=o.read(bool, "resnet_dt", True),
        numb_fparam=o.read(int, "numb_fparam", 0),
        numb_aparam=o.read(int, "numb_aparam", 0),
        dim_case_embd=o.read(int, "dim_case_embd", 0),
        default_fparam=o.read(tuple[float, ...], "default_fparam"),
        atom_ener=tuple(_energy(entry) for entry in o.read(tuple[Any, ...], "atom_ener", ())),
    )


def _energy(entry: Any) -> float | None:
    """One element's vacuum energy; deepmd-kit writes a number, a list with one number, or null."""
    if isinstance(entry, (list, tuple)):
        entry = entry[0] if entry else None
    energy: float | None = typed(float | None, entry, "fitting_net.atom_ener")
    return energy
