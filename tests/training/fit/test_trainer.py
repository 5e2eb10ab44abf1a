"""The loop: it learns, resumes to the bit, and stops on what is not a number."""

import dataclasses

import numpy as np
import pytest
import torch

import dpa2calc.training.fit.trainer as trainer
from dpa2calc.errors import ConfigError, DataError, TrainingError
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.evaluate import Evaluation
from dpa2calc.training.fit.loss import energy_force_loss
from dpa2calc.training.fit.run import pretrain, train
from dpa2calc.training.fit.setup import new_potential
from dpa2calc.training.runs.log import History
from dpa2calc.training.runs.report import finish_run

FAST = TrainConfig(
    steps=24,
    batch_atoms=8,
    learning_rate=5e-3,
    learning_rate_stop=1e-4,
    ema_decay=0.9,
    gradient_clip_relative=3.0,
    validate_every=10,
    checkpoint_every=6,
    log_every=4,
)


def test_it_learns_forces_and_energies(tiny_model, lj_data, tmp_path):
    data = lj_data(40)
    config = FAST.replace(steps=160, learning_rate=2e-2, learning_rate_stop=2e-4, batch_atoms=16)
    result = train(
        tiny_model(), data, config, validation=lj_data(10, seed=9), output=tmp_path, progress=False
    )
    start, end = result.history.validation[0]["sets"]["A"], result.history.validation[-1]["sets"]["A"]
    rms = 1e3 * np.sqrt(np.mean(np.concatenate([f.forces for f in data]) ** 2))
    assert start["force_rmse"] == pytest.approx(rms, rel=0.3)
    assert end["force_rmse"] < 0.35 * start["force_rmse"]
    assert end["energy_rmse"] < 0.35 * start["energy_rmse"]
    steps, errors = result.history.series("A", "force_rmse", kind="train")
    assert steps == list(range(4, 161, 4)) and errors[-1] < 0.4 * errors[0]
    # The potential returned is the averaged one, which is also what the file holds.
    last = load_checkpoint(tmp_path / "last.safetensors").state_dict()
    assert all(torch.equal(v, last[n]) for n, v in result.potential.state_dict().items())
    assert result.potential.config.heads[0].elements == ("Ar",)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interrupted_and_resumed_is_bit_identical(tiny_model, lj_data, tmp_path, dtype, same_weights):
    sets = {
        "A": TrainingSet(lj_data(9), lj_data(3, seed=5), weight=2.0),
        "B": TrainingSet(lj_data(5, shift=-2.0, repeat=2), head="B"),
    }
    model = tiny_model(("A", "B"))
    config = FAST.replace(dtype=dtype, batches_per_step=2, gradient_clip_batch=1.0)

    def run(folder, **changes):
        return pretrain(model, sets, config.replace(**changes), output=tmp_path / folder, progress=False)

    whole = run("whole")
    part = run("parts", time_limit=1e-9)  # stops after its first step each time
    assert (part.steps, part.finished) == (1, False)
    while not part.finished:
        part = run("parts", time_limit=1e-9 if part.steps < 5 else 0.0)
    assert whole.steps == part.steps == config.steps
    for name in ("last", "best"):
        assert same_weights(tmp_path / f"whole/{name}.safetensors", tmp_path / f"parts/{name}.safetensors")
    one, two = (History.read(tmp_path / f / "log.jsonl") for f in ("whole", "parts"))
    assert [r["step"] for r in one.validation] == [r["step"] for r in two.validation]
    assert one.validation[-1] == two.validation[-1]


def test_nan_loss_names_the_frames_and_keeps_the_checkpoint(tiny_model, lj_data, tmp_path, monkeypatch):
    data = lj_data(6)
    train(tiny_model(), data, FAST.replace(steps=6), output=tmp_path, progress=False)
    before = (tmp_path / "last.safetensors").read_bytes()

    def not_finite(*args, **options):
        terms = energy_force_loss(*args, **options)
        return dataclasses.replace(terms, total=terms.total * np.nan)

    monkeypatch.setattr(trainer, "energy_force_loss", not_finite)
    with pytest.raises(TrainingError, match=r"loss is not finite at step 6; the batch was: data, frame \d"):
        train(tiny_model(), data, FAST, output=tmp_path, progress=False)
    assert (tmp_path / "last.safetensors").read_bytes() == before


def test_ten_validation_frames_choose_the_weights_fewer_do_not(tiny_model, lj_data, tmp_path, same_weights):
    """A learning rate that ruins the model: the best weights are the first, but one frame cannot say so."""
    config = FAST.replace(steps=12, learning_rate=1.0, learning_rate_stop=1.0, final_bias_frames=0)
    for frames, chosen in ((9, "last"), (10, "best")):
        train(
            tiny_model(),
            lj_data(4),
            config,
            output=tmp_path / chosen,
            validation=lj_data(frames, seed=3),
            progress=False,
        )
        assert same_weights(
            tmp_path / f"{chosen}/{chosen}.safetensors", tmp_path / f"{chosen}/model.safetensors"
        )
    assert not same_weights(tmp_path / "best/best.safetensors", tmp_path / "best/last.safetensors")
    # the same call with another choice leaves the other weights
    for keep in ("last", "best"):
        options = config.replace(keep=keep)
        train(
            tiny_model(), lj_data(4), options, output=tmp_path / "best", validation=lj_data(10, seed=3),
            progress=False,
        )  # fmt: skip
        assert same_weights(tmp_path / f"best/{keep}.safetensors", tmp_path / "best/model.safetensors")


def test_only_what_is_learned_chooses_the_weights(tiny_model, lj_data, tmp_path):
    """Energies that nothing trains would hide how the forces do; the summary says that they mean nothing."""
    config = FAST.replace(steps=2, energy_prefactor_start=0.0, energy_prefactor_limit=0.0)
    result = train(
        tiny_model(), lj_data(4), config, validation=lj_data(2, seed=3), output=tmp_path, progress=False
    )
    for record in result.history.validation:
        assert record["score"] == pytest.approx(record["sets"]["A"]["force_rmse"])
    sets = {"A": TrainingSet(lj_data(4))}
    said = finish_run(result, sets, {"A": lj_data(2, seed=5)}, config=config, progress=False).text
    assert "A: energies were not learned (the prefactors of the energy are 0)" in said
    without = dataclasses.replace(lj_data(4), frames=tuple(
        dataclasses.replace(f, energy=None) for f in lj_data(4)
    ))  # fmt: skip
    test = {"A": lj_data(2, seed=5)}
    said = finish_run(result, {"A": TrainingSet(without)}, test, config=FAST, progress=False).text
    assert "A: energies were not learned (no training frame has one)" in said
    assert "not learned" not in finish_run(result, sets, test, config=FAST, progress=False).text


def test_early_stopping(tiny_model, lj_data, tmp_path, caplog):
    config = FAST.replace(
        steps=400, learning_rate=1e-9, learning_rate_stop=1e-10, early_stopping=2, validate_every=3
    )
    result = train(tiny_model(), lj_data(4), config, validation=lj_data(2), output=tmp_path, progress=False)
    assert result.steps < 60 and "stops nothing" not in caplog.text
    train(tiny_model(), lj_data(4), config.replace(steps=1), output=tmp_path / "blind", progress=False)
    assert "early_stopping = 2 stops nothing: no frames are held out" in caplog.text


def test_errors_before_the_first_step(tiny_model, lj_data, tmp_path):
    with pytest.raises(ConfigError, match="no head 'C' in the model; its heads are A, B"):
        pretrain(tiny_model(("A", "B")), {"C": lj_data(3)}, FAST, output=tmp_path)
    with pytest.raises(DataError, match=r"contains Xe, which the model has no type for .*Ar, Ne"):
        pretrain(tiny_model(), {"A": lj_data(3, symbol="Xe")}, FAST, output=tmp_path)
    bare = Dataset.from_atoms([f.atoms() for f in lj_data(3)])
    with pytest.raises(DataError, match="no frame has an energy, forces or a stress"):
        pretrain(tiny_model(), {"A": bare}, FAST, output=tmp_path)
    with pytest.raises(DataError, match="set 'A', validation: no frame has an energy, forces or a stress"):
        train(tiny_model(), lj_data(3), FAST, output=tmp_path, validation=bare)
    with pytest.raises(ConfigError, match=r"freeze_layers = 1 is of finetune.* TrainConfig"):
        train(tiny_model(), lj_data(3), FinetuneConfig(freeze_layers=1), output=tmp_path)


def test_global_random_state_is_left_alone(tiny_model, lj_data, tmp_path):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    train(tiny_model(), lj_data(3), FAST.replace(steps=2), output=tmp_path, progress=False)
    assert torch.equal(before, torch.get_rng_state())


def test_log_plot(tiny_model, lj_data, tmp_path):
    result = train(
        tiny_model(), lj_data(4), FAST, validation=lj_data(2, seed=3), output=tmp_path, progress=False
    )
    axes = result.plot()
    assert axes[1].get_ylabel() == "force RMSE (meV/Å)"
    assert list(axes[1].lines[1].get_xdata()) == [0, 10, 20, 24]
    last = result.history.validation[-1]["sets"]["A"]
    assert f"at step 24, validation:\n  A: {last['energy_rmse']:.2f} meV/atom" in result.summary()
    assert f"files: {tmp_path}" in repr(result) and "Parameter" not in repr(result)
    with pytest.raises(DataError, match="there is no training log"):
        History.read(tmp_path / "nothing.jsonl")


def test_sets_whose_names_look_alike_keep_their_own_files(tiny_model, lj_data, tmp_path):
    sets = {
        "a/b": TrainingSet(lj_data(3)),
        "a_b": TrainingSet(lj_data(3)),
        "x" * 250: TrainingSet(lj_data(3)),
    }
    config = FAST.replace(steps=1)
    result = pretrain(tiny_model(tuple(sets)), sets, config, output=tmp_path, progress=False)
    test = {name: lj_data(n + 1, name=name) for n, name in enumerate(sets)}
    finish_run(result, sets, test, config=config, progress=False)
    found = [Evaluation.load(path) for path in tmp_path.glob("evaluation_*.npz")]
    assert {e.name: e.errors.n_frames for e in found} == {"a/b": 1, "a_b": 2, "x" * 250: 3}
    assert len(list(tmp_path.glob("parity_*.png"))) == 3
    for name in ("a\0b", "", "a\nb", "\ud800"):
        with pytest.raises(ConfigError, match=r"(the set's|head\.)\s?name .* is not allowed"):
            pretrain(tiny_model((name,)), {name: lj_data(2)}, config, output=tmp_path / "bad")
    two = {"a": TrainingSet(lj_data(2), {"b": lj_data(1)}), "a/b": TrainingSet(lj_data(2), lj_data(1))}
    with pytest.raises(ConfigError, match="two validation sets have the name 'a/b'"):
        pretrain(tiny_model(("a", "a/b")), two, config, output=tmp_path / "two", progress=False)


def test_a_run_from_a_model_has_the_precision_that_is_asked_for(tiny_model, lj_data, tmp_path):
    model = new_potential(tiny_model(), seed=1, dtype="float64")
    for dtype in ("float32", "float64"):
        config = TrainConfig(steps=1, batch_atoms=8, dtype=dtype, final_bias_frames=0)
        made = train(model, lj_data(3), config, output=tmp_path / dtype, head="A", progress=False).potential
        assert made.precision == dtype and made.heads[0].out_bias.values.dtype == torch.float64
    assert model.precision == "float64"


def test_shared_steps_of_one_head_are_refused(tiny_model, lj_data, tmp_path):
    with pytest.raises(
        ConfigError, match=r"shared_steps = 5 has no effect: the model has one head; leave it out"
    ):
        train(tiny_model(), lj_data(3), TrainConfig(steps=1, shared_steps=5), output=tmp_path, head="A")
