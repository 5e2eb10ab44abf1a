"""A folder belongs to one kind of work."""

import json

import pytest
from ase.calculators.emt import EMT
from learning_cases import copper, tiny

from dpa2calc.errors import ConfigError
from dpa2calc.training import FinetuneConfig, TrainConfig, active_learning, distill, finetune, learning_curve
from dpa2calc.training.fit.setup import new_potential


def test_work_of_another_kind_leaves_what_is_there_as_it_is(run, lj_data, tiny_model, tmp_path):
    trained = run().output
    model = (trained / "model.safetensors").read_bytes()
    rounds = {"md": {"temperature": 300, "steps": 2, "sample_interval": 1}, "progress": False}
    with pytest.raises(ConfigError, match=r"run holds a training \(state.safetensors\); choose another"):
        distill(EMT(), copper(), tiny(), output=trained, train=TrainConfig(steps=1), **rounds)
    with pytest.raises(ConfigError, match="holds a training"):
        active_learning(
            new_potential(tiny("base"), seed=1), label=EMT(), start=copper(), output=trained, **rounds
        )
    with pytest.raises(ConfigError, match="holds a training"):
        learning_curve(lj_data(3), lj_data(2), sizes=(2,), schemes={}, output=trained)
    assert (trained / "model.safetensors").read_bytes() == model and not list(trained.glob("labelled*"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "state.json").write_text(json.dumps({}))
    start = new_potential(tiny_model(), seed=1)
    with pytest.raises(ConfigError, match="other holds a distillation or active learning"):
        run("other")
    with pytest.raises(ConfigError, match="other holds a distillation or active learning"):
        finetune(start, lj_data(3), FinetuneConfig(steps=1), output=other, progress=False)
    assert [path.name for path in other.iterdir() if not path.name.startswith(".")] == ["state.json"]
