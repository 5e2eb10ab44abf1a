"""The tables of deepmd-kit's options: one row an option, the same for reading and for writing.

Two readings of a missing option exist. In an `input.json` it has deepmd-kit 3.2's default there. In a model
file deepmd-kit's class is made without it and takes its own default, which is another one for some options;
and where the file is older than the option, it means what the model did before (docs/maths.md 12). A row has
the default of the class, or what was done before; then the one of an `input.json`, where it is another.
"""

from __future__ import annotations

from dpa2calc.model.config import (
    BridgingConfig,
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    TebdMode,
    ThreeBodyConfig,
)

from .option_reader import NEEDED, Fixed, Options, Part, Reading, Row, Section, same


def plain_activation(value: object) -> object:
    """The name in lower case; `custom_silu` is deepmd-kit's other name of `silut`."""
    if not isinstance(value, str):
        return value
    name = value.lower()
    return "silut" + name.removeprefix("custom_silu") if name.startswith("custom_silu") else name


def _neighbors(key: str, body: str, default: object = NEEDED) -> Row:
    """A number of neighbours, which "auto" leaves to the data."""
    statistics = f"descriptor.{body}.mean"
    return Row(key, default, ours="nsel", find=lambda o, reading: reading.n_neighbors(o, key, statistics))


def _sel_of_types(o: Options, reading: Reading) -> tuple[int, ...]:
    """One number a type; of "auto" the arrays tell the sum only, which will do for one element."""
    sel = o.get("sel", "auto")
    if isinstance(sel, (list, tuple)):
        return o.read(tuple[int, ...], "sel")
    if isinstance(sel, str) and reading.n_types > 1:
        reading = Reading(reading.missing)
    return (reading.n_neighbors(o, "sel", "descriptor.sea.mean"),) * reading.n_types


def _one_side(_: Options, reading: Reading) -> bool:
    """One net for each type of the neighbour, or for each pair: the nets in the file tell."""
    return not (reading.holds("descriptor.sea.") and reading.holds(f"networks.{reading.n_types}."))


def _second(o: Options) -> bool:
    return bool(o.values.get("type") == "se_atten_v2")


def _tebd_bias(_: Options, reading: Reading) -> bool:
    """Files older than the option have a bias (docs/maths.md 12); whether the array is there settles it."""
    bias = "descriptor.type_embedding.embedding.embedding_net.layers.0.bias"
    return reading.holds(bias) if reading.arrays else True


def _tebd_mode(o: Options, reading: Reading) -> object:
    """ "concat" or "strip"; the deprecated `stripped_type_embedding` goes before `tebd_input_mode`."""
    mode = "strip" if _second(o) else o.read(TebdMode, "tebd_input_mode", "concat")
    stripped = o.read(bool, "stripped_type_embedding")
    if stripped is None:
        return mode
    if reading.arrays:  # files of 3.0.0 alpha say false and mean nothing by it
        return "strip" if reading.holds("filter_layers_strip") else "concat"
    return "strip" if stripped else "concat"


def _later(o: Options, reading: Reading) -> bool:
    """Options of DPA-2 that came with 3.0.0rc0; older files have none of them, nor the arrays of one."""
    if any(o.get(name) is not None for name in ("use_sqrt_nnei", "g1_out_conv", "g1_out_mlp")):
        return True
    return reading.holds("g1_self_mlp") if reading.arrays else reading.missing == "default"


def _energies(values: object) -> object:
    """Vacuum energies; deepmd-kit has a number, a list with one number, or null for an element."""
    if not isinstance(values, (list, tuple)):
        return values
    return [(v[0] if v else None) if isinstance(v, (list, tuple)) else v for v in values]


_ACTIVATION = Row("activation_function", "tanh", ours="activation", change=plain_activation)
_COMMON = same(exclude_types=(), env_protection=0.0)
_TRAINABLE = Fixed("trainable", True)
_NO_EXP_SWITCH = Fixed("use_exp_switch", allowed=(False,), why="the exponential switch function is not")
_CUTOFFS = (Row("rcut", ours="cutoff"), Row("rcut_smth", ours="cutoff_smooth"))
_ONE_BLOCK = (
    Row("rcut", NEEDED, 6.0, ours="cutoff"),
    Row("rcut_smth", 0.5, ours="cutoff_smooth"),
    Row("neuron", (25, 50, 100), (10, 20, 40)),
    Row("axis_neuron", 16, 4, aliases=("n_axis_neuron",)),
    _ACTIVATION,
    Row("resnet_dt", False),
)
_TYPE_EMBEDDING = (
    *same(concat_output_tebd=True, use_econf_tebd=False),
    Row("use_tebd_bias", _tebd_bias, False),
)

REPINIT = Section(
    RepinitConfig,
    (
        *_CUTOFFS,
        _neighbors("nsel", "repinit"),
        *same(neuron=(25, 50, 100), axis_neuron=16, tebd_dim=8, tebd_input_mode="concat", set_davg_zero=True),
        _ACTIVATION,
        *same(resnet_dt=False, type_one_side=False),
    ),
)
# deepmd-kit keeps the three-body options even where there is no such part.
THREE_BODY = Section(
    ThreeBodyConfig,
    (
        Row("three_body_neuron", (2, 4, 8), ours="neuron"),
        _neighbors("three_body_sel", "repinit_three_body", 40),
        Row("three_body_rcut", 4.0, ours="cutoff"),
        Row("three_body_rcut_smth", 0.5, ours="cutoff_smooth"),
    ),
)
REPFORMER = Section(
    RepformerConfig,
    (
        *_CUTOFFS,
        _neighbors("nsel", "repformers"),
        _ACTIVATION,
        *same(
            nlayers=3, g1_dim=128, g2_dim=16, axis_neuron=4, direct_dist=False, update_g1_has_conv=True,
            update_g1_has_drrd=True, update_g1_has_grrg=True, update_g1_has_attn=True,
            update_g2_has_g1g1=True, update_g2_has_attn=True, update_h2=False, attn1_hidden=64,
            attn1_nhead=4, attn2_hidden=16, attn2_nhead=4, attn2_has_gate=False, update_style="res_avg",
            update_residual=0.001, update_residual_init="norm", set_davg_zero=True, trainable_ln=True,
            use_sqrt_nnei=_later, g1_out_conv=_later, g1_out_mlp=_later, ln_eps=1e-5,
        ),
    ),
)  # fmt: skip
DPA2 = Section(
    DPA2Config,
    (
        Row("smooth", True),
        Row("add_tebd_to_repinit_out", False, aliases=("repformer_add_type_ebd_to_seq",)),
        *_TYPE_EMBEDDING,
        *_COMMON,
    ),
    (_TRAINABLE, _NO_EXP_SWITCH),
    (
        Part("repinit", "repinit", REPINIT),
        Part("three_body", "repinit", THREE_BODY, switch="use_three_body"),
        Part("repformer", "repformer", REPFORMER),
    ),
)
DPA1 = Section(
    DPA1Config,
    (
        *_ONE_BLOCK,
        _neighbors("sel", "se_atten"),
        Row("tebd_dim", 8),
        Row("tebd_input_mode", find=_tebd_mode),
        Row("set_davg_zero", True, lambda o, _: not _second(o)),
        *same(attn=128, attn_layer=2, attn_dotr=True, scaling_factor=1.0, normalize=True, temperature=None),
        *same(trainable_ln=True, ln_eps=1e-5),
        Row("smooth_type_embedding", True, lambda o, _: _second(o), aliases=("smooth_type_embdding",)),
        Row("type_one_side", False),
        *_TYPE_EMBEDDING,
        *_COMMON,
    ),
    (
        _TRAINABLE,
        _NO_EXP_SWITCH,
        Fixed("attn_mask", False, (False,), "attention that masks its own diagonal is not"),
        Fixed("lmax", allowed=(1,), why="moments of a degree above 1 are not"),
    ),
)
DEEPPOT_SE = Section(
    DeepPotSEConfig,
    (
        *_ONE_BLOCK,
        Row("sel", find=_sel_of_types),
        Row("type_one_side", _one_side, False),
        Row("set_davg_zero", False),
        *_COMMON,
    ),
    (_TRAINABLE, _NO_EXP_SWITCH, Fixed("type_embedding", why="se_e2_a with type embedding is not")),
)
# Of our `kind`: deepmd-kit's names of it, the one that is written first, and its options.
DESCRIPTORS: dict[str, tuple[tuple[str, ...], Section]] = {
    "dpa2": (("dpa2",), DPA2),
    "dpa1": (("dpa1", "se_atten", "se_atten_v2"), DPA1),
    "deeppot_se": (("se_e2_a", "se_a"), DEEPPOT_SE),
}
FITTING = Section(
    FittingConfig,
    (
        Row("neuron", (128,) * 3, (120,) * 3, aliases=("n_neuron",)),
        *same(resnet_dt=True, numb_fparam=0, numb_aparam=0, default_fparam=None, dim_case_embd=0),
        _ACTIVATION,
        Row("atom_ener", (), change=_energies),
    ),
    (
        Fixed("type", "ener", ("ener",), "only energy fitting nets are"),
        _TRAINABLE,
        Fixed("rcond", None),
        Fixed("use_aparam_as_mask", False, (False,), "atomic parameters as a mask are not"),
        Fixed("layer_name", why="fitting nets that share layers by name are not"),
    ),
)
MODEL = Section(
    ModelConfig,
    same(type_map=NEEDED, pair_exclude_types=(), atom_exclude_types=()),
    (
        Fixed("type", "standard", ("standard", "ener", "zbl"), "only one descriptor with one energy net is"),
        Fixed("bridging_method", "None", ("None", "none"), "only the bridging of `use_srtab` is"),
        Fixed("bridging_r_inner", 0.5),
        Fixed("bridging_r_outer", 0.8),
        Fixed("spin", why="models with spin are not"),
        Fixed("modifier", why="data modifiers are not"),
        Fixed("data_stat_nbatch", 10),
        Fixed("data_stat_protect", 0.01),
        Fixed("data_bias_nsample", 10),
        Fixed("preset_out_bias", None),
        Fixed("srtab_add_bias", True),
    ),
)
HEAD = Section(HeadConfig, (Row("model_branch_alias", (), ours="aliases"),))
BRIDGING = Section(
    BridgingConfig,
    (
        Row("smin_alpha", 0.1),
        Row("sw_rmin", None, ours="switch_min"),
        Row("sw_rmax", None, ours="switch_max"),
    ),
)
SECTIONS = (MODEL, HEAD, BRIDGING, FITTING, DPA2, REPINIT, THREE_BODY, REPFORMER, DPA1, DEEPPOT_SE)
# Without meaning for the numbers of a trained model; an `input.json` reader reports them as ignored.
NEUTRAL = {fixed.theirs for section in SECTIONS for fixed in section.fixed if not fixed.why} | {
    "seed", "ntypes", "tot_ener_zero", "dim_descrpt", "mixed_types", "var_name", "dim_out", "type_map",
    "num_case", "spin", "stripped_type_embedding", "precision",
}  # fmt: skip
