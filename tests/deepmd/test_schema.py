"""Every row of the tables of options: there and back, defaults of deepmd-kit, aliases, what is refused."""

import copy
import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from dpa2calc.deepmd.model_section import descriptor_config, descriptor_params, model_config, model_params
from dpa2calc.deepmd.option_reader import Fixed, Options, Reading, Row, Section
from dpa2calc.deepmd.schema import (
    BRIDGING,
    DEEPPOT_SE,
    DPA1,
    DPA2,
    FITTING,
    HEAD,
    MODEL,
    REPFORMER,
    REPINIT,
    THREE_BODY,
)
from dpa2calc.errors import CheckpointError, ConfigError
from dpa2calc.files.typed import option_types
from dpa2calc.model.config import (
    Activation,
    BridgingConfig,
    DeepPotSEConfig,
    DPA1Config,
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    ThreeBodyConfig,
)

TYPES = ("O", "H")
_LATER = ("use_sqrt_nnei", "g1_out_conv", "g1_out_mlp")  # than 3.0.0 alpha
SECTIONS: dict[str, tuple[Section, Any]] = {
    "dpa2": (DPA2, DPA2Config(three_body=ThreeBodyConfig())),
    "repinit": (REPINIT, RepinitConfig()),
    "three_body": (THREE_BODY, ThreeBodyConfig()),
    "repformer": (REPFORMER, RepformerConfig()),
    "dpa1": (DPA1, DPA1Config()),
    "deeppot_se": (DEEPPOT_SE, DeepPotSEConfig(sel=(5, 6))),
    "fitting_net": (FITTING, FittingConfig(numb_fparam=2)),
    "model": (MODEL, ModelConfig(type_map=TYPES, descriptor=DPA1Config())),
    "head": (HEAD, HeadConfig()),
    "bridging": (BRIDGING, BridgingConfig(cutoff=6.0, nsel=9, switch_min=0.8, switch_max=1.2)),
}
PAIRS = [(name, row) for name in SECTIONS for row in SECTIONS[name][0].rows]
ROWS = [pytest.param(name, row, id=f"{name}.{row.theirs}") for name, row in PAIRS]
RENAMED = [pytest.param(name, row, id=f"{name}.{row.theirs}") for name, row in PAIRS if row.aliases]
# Fields that are no options of deepmd-kit's sections, or not by a row.
ELSEWHERE = {
    "fitting_net": {"exclude_types"},
    "model": {"descriptor", "heads", "neighbor_rule", "bridging", "min_neighbor_distance"},
    "head": {"name", "description", "functional", "elements", "fitting", "info"},
    "bridging": {"cutoff", "nsel", "n_intervals", "r_min", "spacing"},
}


def values(row: Row, hint: Any) -> list[Any]:
    """Some values of a field, by its type; those that the configuration refuses are left out later."""
    if row.field == "activation":
        return [*get_args(Activation), "silut:3.0"]
    if isinstance(get_args(hint)[0] if get_args(hint) else None, str):
        return list(get_args(hint))
    of_type: dict[Any, list[Any]] = {
        bool: [False, True],
        int: [1, 3, 7],
        float: [0.25, 1.0, 4.25, 5.5],
        float | None: [None, 0.5],
        tuple[int, ...]: [(), (0, 1), (24,), (3, 24)],
        tuple[str, ...]: [(), TYPES],
        tuple[float, ...] | None: [None, (0.5, -2.0)],
        tuple[float | None, ...]: [(), (-1.5, None)],
        tuple[tuple[int, int], ...]: [(), ((0, 1),), ((0, 0), (1, 0))],
    }
    return of_type[hint]


def read(section: Section, written: dict[str, Any], missing: Any) -> dict[str, Any]:
    options = Options(json.loads(json.dumps(written)), "section")
    fields = section.read(options, Reading(missing=missing, n_types=len(TYPES)))
    assert not set(options.unused({row.theirs for row in section.fixed})) - {"section.use_three_body"}
    return fields


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_value_comes_back(name: str, row: Row) -> None:
    section, base = SECTIONS[name]
    seen = []
    for value in values(row, option_types(section.config)[row.field]):
        try:
            config = dataclasses.replace(base, **{row.field: value})
        except ConfigError:  # not allowed beside the other options
            continue
        seen.append(getattr(config, row.field))
        for missing in ("old", "default"):
            fields = read(section, section.write(config), missing)
            assert fields == {key: getattr(config, key) for key in fields}
            assert fields[row.field] == value
    assert len(seen) >= 2 or (name == "model" and row.theirs == "type_map"), seen


@pytest.mark.parametrize("name", SECTIONS)
def test_every_field_has_a_row(name: str) -> None:
    section, base = SECTIONS[name]
    told = [row.field for row in section.rows] + [part.ours for part in section.parts]
    fields = {field.name for field in dataclasses.fields(base)} - {"kind"}
    assert sorted(told) == sorted(fields - ELSEWHERE.get(name, set()))
    keys = [n for row in section.rows for n in (row.theirs, *row.aliases)] + [f.theirs for f in section.fixed]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("name", "row"), RENAMED)
def test_aliases(name: str, row: Row) -> None:
    section, base = SECTIONS[name]
    first, second = values(row, option_types(section.config)[row.field])[-2:]
    for alias in row.aliases:
        written = section.write(dataclasses.replace(base, **{row.field: first}))
        del written[row.theirs]
        written[alias] = second
        assert read(section, written, "old")[row.field] == second
        written[row.theirs] = first
        assert read(section, written, "old")[row.field] == first


FIXED = [
    pytest.param(name, row, id=f"{name}.{row.theirs}") for name in SECTIONS for row in SECTIONS[name][0].fixed
]


@pytest.mark.parametrize(("name", "row"), FIXED)
def test_what_there_is_no_code_for_is_refused(name: str, row: Fixed) -> None:
    section, base = SECTIONS[name]
    written = section.write(base)
    for value in (*row.allowed, None):
        read(section, written | {row.theirs: value}, "old")
    if row.why:
        with pytest.raises(CheckpointError, match=rf"section\.{row.theirs} = 17 is not supported: {row.why}"):
            read(section, written | {row.theirs: 17}, "old")
    else:
        read(section, written | {row.theirs: 17}, "old")


def test_a_value_of_another_type_names_the_option() -> None:
    for section, base in SECTIONS.values():
        for row in section.rows:
            with pytest.raises(ConfigError, match=rf"section\.{row.theirs} = .* is not allowed; allowed: "):
                read(section, section.write(base) | {row.theirs: {"a": 1}}, "old")


def test_reading_leaves_its_argument_alone_and_lists_unknown_keys() -> None:
    config = ModelConfig(type_map=TYPES, descriptor=DPA2Config(), neighbor_rule="nearest")
    given = model_params(config, 0, precision="float64")
    given["descriptor"]["repinit"]["new"] = given["descriptor"]["other"] = given["third"] = 1
    before = json.dumps(given)
    found, unknown = model_config(given)
    assert found == config and json.dumps(given) == before
    assert unknown == ["model.third", "descriptor.other", "descriptor.repinit.new"]


# What deepmd-kit 3.2.0 says, kept by option_defaults.py.
DEFAULTS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "deepmd_defaults.json").read_text()
)
SHORTEST: dict[str, dict[str, Any]] = DEFAULTS["given"]
# Of no meaning or of another form: the default number of a layer norm is null there and 1e-5 in its code.
FREE = {"type", "precision", "seed", "stripped_type_embedding", "ln_eps"}


def equal(ours: Any, theirs: Any) -> bool:
    """Whether options agree where both have them, and theirs are all there."""
    if not isinstance(theirs, dict):
        return bool(ours == theirs)
    return all(key in FREE or (key in ours and equal(ours[key], value)) for key, value in theirs.items())


@pytest.mark.parametrize("kind", SHORTEST)
def test_defaults_of_an_input(kind: str) -> None:
    given = Options({"type": kind} | SHORTEST[kind], "descriptor")
    config = descriptor_config(given, Reading(missing="default", n_types=2))
    assert equal(descriptor_params(config, precision="float64"), DEFAULTS["input"][kind])
    if kind == "se_atten_v2":
        assert config.tebd_input_mode == "strip" and config.smooth_type_embedding  # type: ignore[union-attr]


def test_defaults_of_the_fitting_net_and_of_the_model() -> None:
    fitting = FittingConfig(**FITTING.read(Options({}, "fitting_net"), Reading(missing="default")))
    assert equal(FITTING.write(fitting), DEFAULTS["input"]["fitting_net"])
    fitting = FittingConfig(**FITTING.read(Options({}, "fitting_net"), Reading()))
    written = FITTING.write(fitting)
    assert equal(written, {k: v for k, v in DEFAULTS["classes"]["fitting_net"].items() if k in written})
    config = ModelConfig(type_map=TYPES, descriptor=DPA1Config())
    assert equal(model_params(config, 0, precision="float64"), DEFAULTS["input"]["model"])


@pytest.mark.parametrize("kind", SHORTEST)
def test_defaults_of_classes(kind: str) -> None:
    """What a model file leaves out; options that came after 3.0.0 alpha mean what was done before."""
    cutoffs = {} if kind == "dpa2" else {"rcut": 6.0}
    given = Options({"type": kind} | cutoffs | SHORTEST[kind], "descriptor")
    config = descriptor_config(given, Reading(n_types=2))
    written = descriptor_params(config, precision="float64")
    theirs = DEFAULTS["classes"]
    later: dict[str, Any] = {"use_tebd_bias": True} if "use_tebd_bias" in theirs[kind] else {}
    no_options = {"type_map", "spin", "ntypes", "lmax"}
    told = {key: value for key, value in theirs[kind].items() if key not in no_options}
    assert equal(written, told | later)
    if kind == "dpa2":
        assert equal(written["repinit"], theirs["repinit"])
        old = dict.fromkeys(_LATER, False)
        assert equal(written["repformer"], theirs["repformer"] | old)


@pytest.mark.parametrize("given", _LATER)
def test_a_file_with_one_of_the_later_options_has_the_defaults_of_the_others(given: str) -> None:
    options = {"type": "dpa2"} | copy.deepcopy(SHORTEST["dpa2"])
    options["repformer"][given] = False
    reading = Reading(arrays={"descriptor.g1_shape_tranform.matrix": torch.zeros(1)}, n_types=2)
    written = descriptor_params(
        descriptor_config(Options(options, "descriptor"), reading), precision="float64"
    )
    later = {name: DEFAULTS["classes"]["repformer"][name] for name in _LATER}
    assert {name: written["repformer"][name] for name in _LATER} == later | {given: False}


def test_every_option_of_deepmd_kit_is_known() -> None:
    for kind, section in DEFAULTS["input"].items():
        if kind in SHORTEST:
            params = DEFAULTS["input"]["model"] | {"descriptor": section, "fitting_net": {}}
            assert model_config(params)[1] == []


def test_three_body_options_stay_where_there_is_no_such_part() -> None:
    repinit = descriptor_params(DPA2Config(), precision="float64")["repinit"]
    theirs = DEFAULTS["input"]["dpa2"]["repinit"]
    three_body = [key for key in repinit if "three_body" in key]
    assert len(three_body) == 5 and all(repinit[key] == theirs[key] for key in three_body)


def test_combinations_of_switches_come_back() -> None:
    switches = ("concat_output_tebd", "smooth", "add_tebd_to_repinit_out", "use_econf_tebd", "use_tebd_bias")
    for bits in itertools.product((False, True), repeat=len(switches)):
        for three_body in (None, ThreeBodyConfig(nsel=20, cutoff_smooth=0.5)):
            config = DPA2Config(three_body=three_body, **dict(zip(switches, bits)))  # type: ignore[arg-type]
            given = Options(descriptor_params(config, precision="float64"), "descriptor")
            assert descriptor_config(given, Reading()) == config


@pytest.mark.deepmd
def test_the_kept_defaults_are_those_of_deepmd_kit(
    deepmd_script: Callable[..., None], tmp_path: Path
) -> None:
    script = Path(__file__).with_name("option_defaults.py")
    deepmd_script(script, tmp_path / "defaults.json", folder=tmp_path)
    assert json.loads((tmp_path / "defaults.json").read_text()) == DEFAULTS
