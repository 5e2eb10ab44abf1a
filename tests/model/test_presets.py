"""Presets and configurations: sizes, JSON round trip, errors."""

import dataclasses
import json

import pytest

from dpa2calc.errors import ConfigError
from dpa2calc.model.config import (
    DeepPotSEConfig,
    DPA2Config,
    HeadConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
    from_dict,
    to_dict,
)
from dpa2calc.model.config.presets import preset, preset_names
from dpa2calc.model.potential import Potential

FOUR = ("O", "H", "Cu", "C")


def n_parameters(config: ModelConfig) -> int:
    return sum(p.numel() for p in Potential(config).parameters())


# BASELINES.md, counted by deepmd-kit with 4 types and one head.
@pytest.mark.parametrize(
    ("name", "millions"), [("paper", 4.98), ("small", 0.62), ("medium", 1.02), ("large", 1.74)]
)
def test_number_of_parameters(name, millions):
    assert n_parameters(preset(name, FOUR)) == pytest.approx(millions * 1e6, rel=0.01)


def test_each_further_head_adds_a_fitting_net():
    one = preset("paper", FOUR)
    two = one.with_heads((HeadConfig(name="a"), HeadConfig(name="b")))
    assert n_parameters(two) - n_parameters(one) == pytest.approx(0.15e6, rel=0.01)


@pytest.mark.parametrize("name", preset_names())
def test_configurations_survive_json(name):
    config = preset(name, FOUR)
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_unknown_key_names_the_nearest():
    values = to_dict(preset("small", FOUR))
    values["descriptor"]["repformer"]["n_layers"] = 3
    with pytest.raises(
        ConfigError, match=r"unknown option descriptor\.repformer\.n_layers = 3; did you mean .*\.nlayers\?"
    ):
        from_dict(ModelConfig, values)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RepinitConfig(cutoff=-1.0), "repinit.cutoff = -1.0 is not allowed"),
        (lambda: RepinitConfig(cutoff_smooth=7.0), r"below the cutoff \(6.0 Å\)"),
        (lambda: RepformerConfig(activation="tan"), "repformer.activation = 'tan'"),
        (lambda: RepformerConfig(update_style="res"), "res_avg, res_incr, res_residual"),
        (
            lambda: DPA2Config(repformer=RepformerConfig(cutoff=6.0)),
            r"repformer.cutoff = 6.0 is not allowed; allowed: below repinit's",
        ),
        (
            lambda: RepformerConfig(update_g1_has_drrd=False, update_g1_has_grrg=False),
            "repformer.g1_out_mlp = True is not allowed; allowed: false, where update_g1_has_drrd",
        ),
        (lambda: preset("huge", FOUR), "no preset 'huge'; there are paper"),
        (lambda: dataclasses.replace(preset("small", FOUR), type_map=("H", "H")), "no element twice"),
        (lambda: dataclasses.replace(preset("deeppot-se", FOUR), type_map=("H",)), "1 numbers, one a type"),
        (lambda: ModelConfig(type_map=("H",), descriptor=DeepPotSEConfig(sel=(0,))), "not all of them 0"),
    ],
)
def test_wrong_options_are_named(make, text):
    with pytest.raises(ConfigError, match=text):
        make()
