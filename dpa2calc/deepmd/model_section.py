"""deepmd-kit's model section <-> our configuration, by the tables of `schema`."""

from __future__ import annotations

from dataclasses import replace

from dpa2calc.errors import CheckpointError
from dpa2calc.model.config import BridgingConfig, DescriptorConfig, FittingConfig, HeadConfig, ModelConfig

from .branch import Tree
from .option_reader import Options, Reading, Section
from .schema import BRIDGING, DESCRIPTORS, FITTING, HEAD, MODEL, NEUTRAL


def model_config(
    params: Tree,
    *,
    name: str = "Default",
    reading: Reading | None = None,
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
    fields = MODEL.read(model, reading)
    reading = replace(reading, n_types=len(fields["type_map"]))
    raw = Options(model.need("descriptor"), "descriptor")
    descriptor = descriptor_config(raw, reading)
    # a class takes an empty section for a missing one, an `input.json` must have it
    fitting = model.get("fitting_net", {}) if reading.missing == "old" else model.need("fitting_net")
    fitting_options = Options(fitting, "fitting_net")
    fitting_options.get("exclude_types")  # deepmd-kit overwrites it with the model's atom_exclude_types
    info = model.read(Tree, "info", {})
    head = HeadConfig(
        name=name,
        elements=Options(info, "model.info").read(tuple[str, ...], "observed_type", ()),
        fitting=FittingConfig(**FITTING.read(fitting_options, reading)),
        info={key: value for key, value in info.items() if key != "observed_type"},
        **HEAD.read(model, reading),
    )
    config = ModelConfig(
        descriptor=descriptor,
        heads=(head,),
        neighbor_rule="nearest",
        bridging=_bridging(model, reading, descriptor),
        **fields,
    )
    neutral = NEUTRAL if reading.missing == "old" else {"precision"}
    return config, [key for options in (model, raw, fitting_options) for key in options.unused(neutral)]


def _bridging(model: Options, reading: Reading, descriptor: DescriptorConfig) -> BridgingConfig | None:
    fields = BRIDGING.read(model, reading)
    if model.get("use_srtab") is None:
        return None
    if None in fields.values():
        raise CheckpointError("the model has a pair table (use_srtab), but no sw_rmin and sw_rmax")
    return BridgingConfig(cutoff=descriptor.cutoff, nsel=descriptor.nsel, **fields)


def descriptor_config(o: Options, reading: Reading) -> DescriptorConfig:
    """The descriptor's options.

    Raises:
        CheckpointError: a descriptor of another kind.
    """
    name = o.need("type")
    for names, section in DESCRIPTORS.values():
        if name in names:
            _unflatten(o, section)
            made: DescriptorConfig = section.config(**section.read(o, reading))
            return made
    known = ", ".join(name for names, _ in DESCRIPTORS.values() for name in names if name != "se_a")
    raise CheckpointError(f"descriptor.type = {name!r} is not supported; supported: {known}")


def _unflatten(o: Options, section: Section) -> None:
    """The oldest files keep the sections of DPA-2 flat, with prefixed keys."""
    if not section.parts or o.get("repinit") is not None:
        return
    for name in ("repinit", "repformer"):
        values = {k.removeprefix(f"{name}_"): v for k, v in o.values.items() if k.startswith(f"{name}_")}
        values.pop("add_type_ebd_to_seq", None)  # an option of the whole descriptor
        o.used.update(k for k in o.values if k.startswith(f"{name}_"))
        if "activation" in values:
            values["activation_function"] = values.pop("activation")
        o.parts[name] = Options(values, f"{o.where}.{name}")
    repinit = o.parts["repinit"].values
    for key in ("tebd_dim", "tebd_input_mode", "type_one_side", "resnet_dt"):
        if o.get(key) is not None:
            repinit.setdefault(key, o.get(key))
    if "rcut" not in repinit:
        raise CheckpointError("the descriptor has neither `repinit` and `repformer` nor `repinit_rcut`")


def model_params(config: ModelConfig, head: int, *, precision: str) -> Tree:
    """The model section of one head with every option of version 3.2 written out.

    Args:
        head: position in `config.heads`.
        precision: "float32" or "float64".
    """
    one = config.heads[head]
    sections = {
        "descriptor": descriptor_params(config.descriptor, precision=precision),
        "fitting_net": fitting_params(one.fitting, precision=precision),
        "info": {"observed_type": list(one.elements)} if one.elements else {},
    }
    bridging = {} if config.bridging is None else BRIDGING.write(config.bridging)
    return MODEL.write(config) | sections | HEAD.write(one) | bridging


def descriptor_params(config: DescriptorConfig, *, precision: str) -> Tree:
    """The descriptor section."""
    names, section = DESCRIPTORS[config.kind]
    return {"type": names[0]} | section.write(config) | {"precision": precision}


def fitting_params(config: FittingConfig, *, precision: str) -> Tree:
    """The fitting_net section."""
    return FITTING.write(config) | {"precision": precision}
