"""Every option of every configuration takes numbers of any kind, and nothing of another type."""

import dataclasses
import math
import types
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import numpy as np
import pytest

from dpa2calc.errors import ConfigError
from dpa2calc.files.options import option_types
from dpa2calc.training.config.run_file import read_run_file
from dpa2calc.training.config.sections import SetSection
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.sets import TrainingData, TrainingSet
from dpa2calc.training.distill.config import DistillConfig
from dpa2calc.training.distill.file import DistillFile
from dpa2calc.training.exploration.options import MDCondition, conditions_of
from dpa2calc.training.fit.run import train
from dpa2calc.training.learning_curve import learning_curve

CONFIGS = (TrainConfig, FinetuneConfig, DistillConfig, MDCondition)
OPTIONS = [(cls, f.name, option_types(cls)[f.name]) for cls in CONFIGS for f in dataclasses.fields(cls)]


def _plain_type(hint):
    if get_origin(hint) in (types.UnionType, Union):
        return next(a for a in get_args(hint) if a is not type(None))
    return get_args(hint)[0] if get_origin(hint) is tuple else hint


def _set(cls, name, value):
    return getattr(cls(**{name: value}), name)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (
            TrainConfig,
            {"decay_steps": 5},
            r"decay_steps = 5 has no effect with schedule = 'cosine'; leave it",
        ),
        (TrainConfig, {"schedule": "constant", "decay_steps": 5}, "decay_steps = 5 has no effect"),
        (
            TrainConfig,
            {"schedule": "constant", "learning_rate_stop": 1e-3},
            "learning_rate_stop = 0.001 has no",
        ),
        (FinetuneConfig, {"lora_scale": 2.0}, "lora_scale = 2.0 has no effect without lora_rank"),
        (FinetuneConfig, {"statistics_frames": 5}, "statistics_frames = 5 has no effect in fine-tuning"),
        (FinetuneConfig, {"shared_steps": 5}, "shared_steps = 5 is not allowed; allowed: 0 in fine-tuning"),
        (
            MDCondition,
            {"barostat_time": 5.0},
            r"md.barostat_time = 5.0 has no effect unless ensemble = 'npt'",
        ),
        (MDCondition, {"cell": "cell"}, r"md.cell = 'cell' has no effect unless ensemble = 'npt'"),
        (
            MDCondition,
            {"ensemble": "nve", "thermostat_time": 5.0},
            "md.thermostat_time = 5.0 has no effect with",
        ),
    ],
)
def test_options_without_effect_are_refused(cls, options, message):
    with pytest.raises(ConfigError, match=message):
        cls(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": ("b",), "split_seed": 2}, "split_seed = 2 has no effect beside validation files"),
        (
            {"validation": ("b",), "validation_fraction": 0.2},
            "validation_fraction = 0.2 has no effect beside",
        ),
        (
            {"validation_fraction": 0.0, "by_group": True},
            "by_group = True has no effect with validation_frac",
        ),
    ],
)
def test_options_of_a_set_without_effect_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SetSection(train=("a",), **options)


def test_constant_rates_need_no_end():
    config = TrainConfig(schedule="constant", learning_rate=1e-6)
    assert (
        config.learning_rate_at(5000)
        == 1e-6
        == config.replace(learning_rate_stop=1e-6).learning_rate_at(9999)
    )
    falling = TrainConfig(
        schedule="exponential", decay_steps=5000, learning_rate=1e-5, learning_rate_stop=1e-6
    )
    assert falling.replace(shared_steps=4).shared_start().learning_rate_at(3) == 1e-5


@pytest.mark.parametrize(("cls", "name", "hint"), OPTIONS, ids=[f"{c.__name__}.{n}" for c, n, _ in OPTIONS])
def test_every_option_by_its_type(cls, name, hint):
    default, kind = getattr(cls(), name), _plain_type(hint)
    where = f"md.{name}" if cls is MDCondition else name
    many = get_origin(hint) is tuple
    if kind in (int, float) and default not in (None, 0, False):
        number = default[0] if many else default
        for same in (
            np.float64(number),
            np.array(number),
            *([np.int64(number), float(number)] * (kind is int)),
        ):
            found = _set(cls, name, same)
            found = found[0] if many else found
            assert found == number and type(found) is kind
        if kind is float:
            assert type(_set(cls, name, np.float32(number))) in (float, tuple)
        if many:
            assert _set(cls, name, np.array([number, number])) == (number, number)
    wrong = {
        int: ["2", 2.5, math.inf, math.nan, True, None, [2], "many", 10**400],
        float: ["0.5", math.nan, -math.inf, True, [[0.5]], 1j],
        bool: ["true", 1, None, np.int64(1)],
        str: [5, b"text", ["a"], True],
    }.get(kind, [5, "nonsense", None, np.array(["adam", "soap"])])
    for value in wrong:
        if (value is None and default is None) or (many and kind is str and value == ["a"]):
            continue
        with pytest.raises(ConfigError, match=rf"^{where}\b.* is not allowed"):
            cls(**{name: value})
    assert kind in (int, float, bool, str) or get_origin(kind) is Literal


def test_infinity_turns_a_limit_off_and_is_refused_elsewhere():
    assert DistillConfig(force_limit=math.inf, upper_bound=math.inf).force_limit == math.inf
    assert TrainConfig(time_limit=math.inf, gradient_clip=np.inf).time_limit == math.inf
    for name in ("learning_rate", "weight_decay", "huber_delta", "energy_prefactor_limit"):
        with pytest.raises(ConfigError, match=f"{name} = inf is not allowed; allowed: a finite number"):
            TrainConfig(**{name: math.inf})


def test_numpy_numbers_train(tiny_model, lj_data, tmp_path):
    config = TrainConfig(steps=np.int64(2), batch_atoms=np.int32(8), learning_rate=np.float32(1e-3))
    assert train(tiny_model(), lj_data(3), config, output=tmp_path, progress=False).steps == 2
    assert (
        train(tiny_model(), lj_data(3), config.replace(steps=2.0), output=tmp_path, progress=False).steps == 2
    )


def test_conditions_of_dynamics():
    (one,) = conditions_of(
        {"temperature": np.array([300, 360]), "steps": np.int64(100), "structures": Path("a")}
    )
    assert one.temperature == (300.0, 360.0) and one.steps == 100 and one.structures == ("a",)
    # as written: they are part of the names by which trajectories on disk are known
    assert repr(MDCondition(temperature=(300, 360.0), timestep=2).temperature) == "(300, 360.0)"
    for md in (5, "nvt", [5], None):
        with pytest.raises(ConfigError, match=r"md = .* is not allowed; allowed: an MDCondition"):
            conditions_of(md)


def test_numbers_of_a_learning_curve_and_weights(tiny_model, lj_data, tmp_path):
    for sizes in ((2, 2.5), ("2",), (0,)):
        with pytest.raises(ConfigError, match=r"sizes = .* is not allowed"):
            learning_curve(lj_data(3), lj_data(1), sizes=sizes, schemes={"a": None}, output=tmp_path / "x")
    for weight in (math.inf, math.nan, "1", 0, -1, None):
        sets = TrainingSet(lj_data(2), weight=weight)
        with pytest.raises(ConfigError, match=r"set 'A': weight = .* is not allowed"):
            TrainingData.of({"A": sets}, tiny_model())


DEEP = "x = " + "[" * 3000 + "]" * 3000
DOTTED = ".".join(["model"] * 3000) + " = 1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("steps = inf", "steps = inf is not allowed; allowed: a whole number"),
        ("steps = nan", "steps = nan is not allowed"),
        ("steps = [5]", r"steps = \[5\] is not allowed"),
        ("steps = {a = 1}", "steps = .* is not allowed"),
        ("learning_rate = inf", "learning_rate = inf is not allowed; allowed: a finite number"),
        ("learning_rate = 1979-05-27", "learning_rate = .* is not allowed"),
        ("sets = 5", "sets = 5 is not allowed; allowed: a table"),
        ("sets.a = 5", "sets.a = 5 is not allowed; allowed: a table"),
        ("output = 5", "output = 5 is not allowed; allowed: a text"),
        ("data = 5", "data = 5 is not allowed; allowed: a text"),
        ("model = 5", "model = 5 is not allowed; allowed: a table"),
        ("sets.a.weight = inf", "sets.a.weight = inf is not allowed; allowed: a finite number"),
        ('sets.a.train = "x"\nsets.a.weight = -1', "weight = -1.0 is not allowed; allowed: above 0"),
        ('sets.a.train = "x"\nsets.a.split_seed = -1', "split_seed = -1 is not allowed"),
        ("sets.a.train = 5", "sets.a.train = 5 is not allowed"),
        ('sets."a\\u0000".train = "x"', r"the set's name 'a\\x00' is not allowed"),
        ('sets." ".train = "x"', "the set's name ' ' is not allowed"),
        (DEEP, "is nested too deeply"),
        (DOTTED, "is nested too deeply"),
    ],
)
def test_odd_values_of_a_training_file(tmp_path, line, message):
    base = {"output": 'output = "run"', "sets": 'sets.z.train = ["x"]'}
    key = line.partition(" ")[0]
    lines = [line, *(text for name, text in base.items() if name != key)]
    path = tmp_path / "run.toml"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=message) as caught:
        read_run_file(path, TrainConfig)
    assert len(str(caught.value)) < 3000
    for changes in ({"train": ("x",)}, None):
        with pytest.raises(ConfigError):
            read_run_file(path, TrainConfig, set_changes=changes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_rounds = inf", "max_rounds = inf is not allowed"),
        ("output = 5", "output = 5 is not allowed"),
        ("data = 5", "data = 5 is not allowed"),
        ("md = 5", "md = 5 is not allowed; allowed: a table"),
        ("start = 5", "start = 5 is not allowed; allowed: a table"),
        ("train.steps = inf", "train.steps = inf is not allowed"),
        ("md.steps = inf", "md.steps = inf is not allowed"),
        ("teacher = [1]", r"teacher = \[1\] is not allowed; allowed: a table"),
        (DEEP, "is nested too deeply"),
    ],
)
def test_odd_values_of_a_distillation_file(tmp_path, line, message):
    base = {"output": 'output = "run"', "md": "md.timestep = 1", "start": 'start.frames = ["x"]'}
    key = line.partition(" ")[0]
    path = tmp_path / "run.toml"
    path.write_text("\n".join([line, *(text for name, text in base.items() if name != key)]) + "\n")
    with pytest.raises(ConfigError, match=message):
        DistillFile(path)


def test_the_device_is_chosen_as_the_calculator_chooses_it(monkeypatch):
    import torch

    assert TrainConfig().device is None
    assert TrainConfig(device="cpu").used_device == "cpu"
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for there, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert TrainConfig().used_device == expected
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert TrainConfig().used_device == "cuda:1" and TrainConfig(device="cpu").used_device == "cpu"
    with pytest.raises(ConfigError, match="device = 'gpu' cannot be used here"):
        assert TrainConfig(device="gpu").used_device
    assert dataclasses.asdict(TrainConfig())["device"] is None
