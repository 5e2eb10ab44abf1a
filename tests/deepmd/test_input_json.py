"""deepmd-kit's `input.json`: the official kinds of water models, and exactly what is ignored."""

import json
from pathlib import Path
from typing import Any

import pytest
from deepmd_inputs import INPUTS, changed_input, water_input

from dpa2calc.deepmd.input_json import parse_input, read_input
from dpa2calc.errors import ConfigError
from dpa2calc.model.config import DeepPotSEConfig, DPA1Config
from dpa2calc.model.config.presets import preset


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_dpa2_is_the_preset(size: str) -> None:
    given = read_input(INPUTS / f"dpa2_{size}.json")
    assert given.config.descriptor == preset(size, ("O", "H")).descriptor
    assert given.config.neighbor_rule == "all"
    assert given.config.heads[0].fitting.neuron == (240, 240, 240)
    assert given.training == {
        "dtype": "float32",
        "batch_atoms": 32,
        "schedule": "exponential",
        "learning_rate": 1e-3,
        "learning_rate_stop": 3.5e-8,
        "decay_steps": 5000,
        "warmup_steps": 0,
        "gradient_clip_relative": None,
        "ema_decay": 0.0,
        "energy_prefactor_start": 0.02,
        "energy_prefactor_limit": 1,
        "force_prefactor_start": 1000,
        "force_prefactor_limit": 1,
        "final_bias_frames": 0,
        "keep": "last",
        "virial_prefactor_start": 0,
        "virial_prefactor_limit": 0,
        "optimizer": "adamw",
        "beta1": 0.9,
        "beta2": 0.999,
        "weight_decay": 0.001,
        "steps": 500_000,
        "log_every": 100,
        "checkpoint_every": 2000,
        "gradient_clip": 5.0,
        "seed": 7,
    }
    assert given.data["Default"].training == ("water/part_a", "water/part_b")
    assert given.data["Default"].validation == ("water/held_out",)
    assert set(given.ignored) == {
        "descriptor.seed",
        "fitting_net.seed",
        "validation_data.batch_size",
        "validation_data.numb_btch",
        "training.disp_file",
    }


def test_se_e2_a() -> None:
    given = read_input(INPUTS / "se_e2_a.json", neighbor_rule="nearest")
    assert given.config.descriptor == DeepPotSEConfig(
        cutoff=6.0, cutoff_smooth=0.5, sel=(50, 100), neuron=(25, 50, 100), axis_neuron=16, type_one_side=True
    )
    assert given.config.neighbor_rule == "nearest"
    assert given.training["dtype"] == "float64"
    assert "_comment" not in " ".join(given.ignored)


def test_se_atten() -> None:
    given = read_input(INPUTS / "se_atten.json")
    assert given.config.descriptor == DPA1Config(
        cutoff=6.0, nsel=110, axis_neuron=16, attn=128, attn_layer=2, type_one_side=True,
        smooth_type_embedding=False,
    )  # fmt: skip


def test_defaults_are_those_of_deepmd() -> None:
    """Options left out have version 3.2's defaults, not those of old files."""
    text: dict[str, Any] = {
        "model": {
            "type_map": ["O", "H"],
            "descriptor": {
                "type": "dpa2",
                "repinit": {"rcut": 6.0, "rcut_smth": 0.5, "nsel": 100},
                "repformer": {"rcut": 4.0, "rcut_smth": 0.5, "nsel": [40]},
            },
            "fitting_net": {},
        }
    }
    descriptor = parse_input(text).config.descriptor
    repformer = descriptor.repformer  # type: ignore[union-attr]
    assert repformer.use_sqrt_nnei and repformer.g1_out_conv and repformer.g1_out_mlp
    assert repformer.update_style == "res_avg" and repformer.nsel == 40 and repformer.attn1_hidden == 64
    assert not descriptor.use_tebd_bias  # type: ignore[union-attr]
    assert descriptor.three_body is None  # type: ignore[union-attr]
    given = parse_input(text | {"optimizer": {"type": "AdamW"}})
    assert given.config.heads[0].fitting.neuron == (120, 120, 120)
    assert given.training["weight_decay"] == 0.001
    assert given.training["virial_prefactor_start"] == given.training["virial_prefactor_limit"] == 0.0
    assert "weight_decay" not in parse_input(text).training


@pytest.mark.parametrize(
    ("theirs", "ours"), [("custom_silu:10.0", "silut:10.0"), ("Custom_SiLU", "silut"), ("SiLUT:2", "silut:2")]
)
def test_names_of_the_silu_with_a_tanh(theirs: str, ours: str) -> None:
    descriptor = {"type": "se_e2_a", "rcut": 6.0, "sel": [4], "activation_function": theirs}
    text = {"model": {"type_map": ["O"], "descriptor": descriptor, "fitting_net": {}}}
    assert parse_input(text).config.descriptor.activation == ours


@pytest.mark.parametrize(
    ("size", "atoms"), [("auto", 32), ("auto:256", 256), ("max:64", 64), (2, None), ("mixed:4", None)]
)
def test_batches_given_by_atoms_are_kept(size: Any, atoms: int | None) -> None:
    given = parse_input(water_input({"training_data": {"systems": "a.lmdb", "batch_size": size}}))
    assert given.training.get("batch_atoms") == atoms
    assert ("training_data.batch_size" in given.ignored) == (atoms is None)
    assert given.data["Default"].training == ("a.lmdb",)


def test_a_run_given_in_epochs_is_refused_and_not_given_a_length() -> None:
    with pytest.raises(ConfigError, match=r"num_epoch = 100: .* write training\.numb_steps"):
        parse_input(water_input({"num_epoch": 100}))
    with pytest.raises(ConfigError, match=r"batch_size = 'auto:many' is not allowed"):
        parse_input(water_input({"training_data": {"batch_size": "auto:many"}}))
    with pytest.raises(ConfigError, match=r"numb_epoch = 3: .* write training\.numb_steps"):
        parse_input(water_input({"numb_epoch": 3}))


@pytest.mark.parametrize("name", ["numb_steps", "numb_step", "num_steps", "num_step", "stop_batch"])
def test_every_name_of_the_length_of_a_run(name: str) -> None:
    given = parse_input(water_input({name: 7}))
    assert given.training["steps"] == 7 and f"training.{name}" not in given.ignored


def test_values_that_mean_the_default() -> None:
    given = parse_input(water_input({"gradient_max_norm": 0.0}) | {"learning_rate": {"stop_lr_ratio": 0.01}})
    assert "gradient_clip" not in given.training
    assert given.training["learning_rate_stop"] == pytest.approx(1e-5)


@pytest.mark.parametrize(
    "option", [{"auto_prob": "prob_uniform"}, {"sys_probs": [1.0]}, {"auto_prob": "prob_sys_size;0:1:1.0"}]
)
def test_how_systems_are_drawn_means_nothing_of_one(option: dict[str, Any]) -> None:
    given = parse_input(water_input({"training_data": {"systems": ["a"], **option}}))
    assert given.data["Default"].training == ("a",) and not given.ignored
    for systems in (["a", "b"], "folder"):
        with pytest.raises(ConfigError, match=rf"training_data\.{next(iter(option))} = .* is not supported"):
            parse_input(water_input({"training_data": {"systems": systems, **option}}))


def test_what_changes_no_model_is_reported() -> None:
    given = parse_input(
        changed_input(
            model__data_stat_nbatch=20,
            model__type_embedding=None,
            loss__start_pref_ae=0.0,
            loss__loss_func="mse",
            learning_rate__scale_by_worker="sqrt",
            training__stat_file="stat",
            nvnmd={},
        )
    )
    assert {"model.data_stat_nbatch", "learning_rate.scale_by_worker", "training.stat_file", "nvnmd"} <= set(
        given.ignored
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__type_embedding": {"neuron": [8]}}, r"model\.type_embedding = .* attn_layer = 0"),
        (
            {"model__preset_out_bias": {"energy": [None, 1.0]}},
            r"model\.preset_out_bias = .* fitted to the data",
        ),
        ({"model__descriptor__trainable": False}, r"descriptor\.trainable = False .*freeze-descriptor"),
        ({"model__fitting_net__trainable": [True, False]}, r"fitting_net\.trainable = \[True, False\] is"),
        (
            {"model__descriptor__precision": "bfloat16"},
            r"descriptor\.precision = 'bfloat16' is not supported",
        ),
        (
            {"model__descriptor__repformer__update_g1_has_atn": True},
            r"not known.*repformer\.update_g1_has_atn",
        ),
        ({"loss__start_pref_ae": 1.0}, r"loss\.start_pref_ae = 1\.0 is not supported: only energies"),
        ({"loss__loss_func": "mae"}, r"loss\.loss_func = 'mae' .* use_huber"),
        ({"loss__relative_f": 1.0}, r"loss\.relative_f = 1\.0 is not supported"),
        ({"loss__intensive_ener_virial": True}, r"loss\.intensive_ener_virial = True is not supported"),
        ({"loss__pref_q": 1}, r"not known.*loss\.pref_q"),
        ({"learning_rate__decay_rate": 0.5}, r"learning_rate\.decay_rate = 0\.5 .*write stop_lr"),
        (
            {"learning_rate__decay_rate": 0.95, "training__numb_steps": 5000},
            r"decay_rate = 0\.95 .*write stop_lr",
        ),
        ({"learning_rate__decay_rate": 1.5}, r"decay_rate = 1\.5 is not allowed"),
        ({"learning_rate__decay_rate": 0.95, "training__numb_steps": None}, r"needs training\.numb_steps"),
        ({"learning_rate__warmup_start_factor": 0.1}, r"learning_rate\.warmup_start_factor = 0\.1 is not"),
        ({"training__acc_freq": 4}, r"training\.acc_freq = 4 .*batches_per_step"),
        ({"training__opt_type": "LKF"}, r"optimizer\.type = 'LKF' is not supported"),
        (
            {"training__training_data__auto_prob": "prob_uniform"},
            r"training_data\.auto_prob = 'prob_uniform'",
        ),
        ({"training__training_data__sys_probs": [0.9, 0.1]}, r"training_data\.sys_probs = \[0\.9, 0\.1\] is"),
        ({"training__training_data__batch_size": "filter:64"}, r"'filter:64' is not supported.*'max:64'"),
        ({"training__numb_epoch": 3}, r"training\.numb_epoch = 3"),
        (
            {"learning_rate__warmup_ratio": 0.3},
            r"a warm-up of 150000 of 500000 steps .*warmup_steps = 100000",
        ),
        (
            {"learning_rate__stop_lr_ratio": 0.1},
            r"learning_rate has stop_lr and stop_lr_ratio, which exclude",
        ),
        (
            {"learning_rate__warmup_steps": 9, "learning_rate__warmup_ratio": 0.1},
            r"warmup_steps and warmup_ratio, which exclude",
        ),
        (
            {"training__mixed_precision": {"compute_prec": "float16"}},
            r"training\.mixed_precision = .* is not",
        ),
        ({"nvnmd": {"enable": True}}, r"nvnmd\.enable = True is not supported"),
        ({"training__systems": ["a"]}, r"training\.systems = \['a'\] .*training\.training_data"),
        ({"training__data_dict": {}}, r"training\.data_dict belongs to a multi-task file .*training_data"),
    ],
)
def test_what_would_change_the_model_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_input(changed_input(**change))


def test_options_in_other_words() -> None:
    """A smooth decay falls at each step, and so on; the numbers are deepmd-kit's."""
    given = parse_input(
        changed_input(
            learning_rate__smooth=True,
            learning_rate__warmup_ratio=0.1,
            training__numb_steps=500,
            training__change_bias_after_training=True,
        )
    ).training
    assert given["decay_steps"] == 1 and given["warmup_steps"] == 50 and "final_bias_frames" not in given
    assert "warmup_ratio" not in given
    old = water_input({"opt_type": "AdamW", "weight_decay": 0.1})
    assert {"optimizer": "adamw", "weight_decay": 0.1}.items() <= parse_input(old).training.items()


def test_networks_of_two_precisions_are_reported() -> None:
    given = parse_input(changed_input(model__fitting_net__precision="float64"))
    assert given.training["dtype"] == "float32"
    assert "fitting_net.precision: all networks have that of the descriptor" in given.ignored


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__descriptor__type": "se_e3"}, r"'se_e3' is not supported; supported: dpa2"),
        ({"model__fitting_net__type": "polar"}, "only energy fitting nets"),
        ({"model__use_srtab": "zbl.txt"}, "pair table"),
        ({"model__spin": {"use_spin": [True]}}, "spin"),
        ({"loss__type": "tensor"}, r"loss\.type = 'tensor' is not supported"),
        ({"learning_rate__type": "wsd"}, r"learning_rate\.type = 'wsd' is not supported"),
        ({"optimizer__type": "LKF"}, "'LKF' is not supported"),
        ({"model__descriptor__repformer__nsel": 200}, r"repformer\.nsel = 200 is not allowed"),
        ({"loss__use_huber": True, "loss__huber_delta": [0.1, 0.2, 0.3]}, r"loss\.huber_delta = \[0\.1"),
        (
            {"learning_rate__stop_lr": None, "learning_rate__stop_lr_ratio": "x"},
            r"learning_rate\.stop_lr_ratio = 'x' is not allowed",
        ),
        ({"training__model_prob": [1.0]}, r"training\.model_prob = '\[1\.0\]' is not a table"),
        ({"model": [1]}, r"model = .\[1\]. is not a table"),
        ({"training__training_data": 3}, "training_data = .3. is not a table"),
    ],
)
def test_what_is_not_supported(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "input.json"
    path.write_text(json.dumps(changed_input(**change)))
    with pytest.raises(ConfigError, match=message):
        read_input(path)


def test_automatic_sel() -> None:
    content = json.loads((INPUTS / "se_e2_a.json").read_text())
    content["model"]["descriptor"]["sel"] = "auto:1.2"
    with pytest.raises(ConfigError, match=r"sel = 'auto:1\.2' is chosen by deepmd-kit from the data"):
        parse_input(content)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no input file"):
        read_input(tmp_path / "input.json")
    path = tmp_path / "input.json"
    path.write_text("{,}")
    with pytest.raises(ConfigError, match="is no JSON"):
        read_input(path)
    path.write_text("[1]")
    with pytest.raises(ConfigError, match="has no 'model' section"):
        read_input(path)
