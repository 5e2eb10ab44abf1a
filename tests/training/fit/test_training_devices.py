"""Training and evaluation away from the CPU: on the stand-in everywhere, on CUDA with `-m gpu`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, make_potential
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from other_device import DEVICES, standing_in

from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.energy_bias import shift_energy_bias
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.finetune.finetune import finetune
from dpa2calc.training.finetune.ranking import rank_heads
from dpa2calc.training.fit.loader import GraphStore, make_batch
from dpa2calc.training.fit.loss import energy_force_loss
from dpa2calc.training.fit.optimizers.soap import Soap
from dpa2calc.training.fit.predict import potential_errors
from dpa2calc.training.fit.run import pretrain, train
from dpa2calc.training.runs.processes import Processes

# torch warns that loading weights "to meta" does nothing; the stand-in sees to it that it does
pytestmark = pytest.mark.filterwarnings("ignore:.*meta parameter.*:UserWarning")
OPTIONS = dict(
    optimizer="adamw", batch_atoms=8, ema_decay=0.9, gradient_clip_relative=3.0, gradient_clip_batch=2.0,
    huber_delta=0.5, virial_prefactor_start=1.0, virial_prefactor_limit=1.0, validate_every=3,
    final_bias_frames=4, dtype="float64", checkpoint_every=2,
)  # fmt: skip


@pytest.fixture(params=DEVICES)
def device(request) -> Iterator[str]:
    """A device that is not the CPU."""
    with standing_in(request.param) as name:
        yield name


def _same(one: Path, other: Path) -> None:
    a, b = load_checkpoint(one).state_dict(), load_checkpoint(other).state_dict()
    for name, value in a.items():
        np.testing.assert_allclose(b[name].numpy(), value.numpy(), rtol=1e-6, atol=1e-8, err_msg=name)


def test_training_gives_the_weights_of_the_cpu(tiny_model, lj_data, tmp_path, device):
    data, held_out = lj_data(6), lj_data(2, seed=5)
    config = TrainConfig(steps=6, **OPTIONS)
    for place in ("cpu", device):
        sets = {"A": TrainingSet(data, held_out), "B": TrainingSet(data)}
        folder = tmp_path / place
        pretrain(tiny_model(("A", "B")), sets, config.replace(device=place), output=folder, progress=False)
    _same(tmp_path / "cpu" / "last.safetensors", tmp_path / device / "last.safetensors")


def test_soap_gives_the_weights_of_the_cpu(device):
    """On given gradients: in a training other rounding turns the first bases of SOAP.

    A square matrix on CUDA, since eigenvectors that share the eigenvalue 0 are another library's choice.
    """
    shape = (5, 7) if device == "meta" else (5, 5)
    gradients = [
        torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(25)
    ]
    found = []
    for place in ("cpu", device):
        weight = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64).to(place))
        soap = Soap({"w": weight})
        for step, gradient in enumerate(gradients):
            weight.grad = gradient.to(place)
            soap.step(0.01)
            if step == 12:
                saved, taken = {name: value.cpu() for name, value in soap.tensors().items()}, dict(soap.steps)
                soap = Soap({"w": weight})
                soap.load(saved, taken)
        found.append(weight.detach().cpu())
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-12 if device == "meta" else 1e-7)


def test_a_stopped_run_goes_on(tiny_model, lj_data, tmp_path, device):
    data, config = lj_data(6), TrainConfig(steps=4, device=device, **OPTIONS)
    train(tiny_model(), data, config, output=tmp_path / "whole", progress=False)
    part = train(
        tiny_model(), data, config.replace(time_limit=1e-9), output=tmp_path / "part", progress=False
    )
    assert (part.steps, part.finished) == (1, False)
    train(tiny_model(), data, config, output=tmp_path / "part", progress=False)
    _same(tmp_path / "whole" / "last.safetensors", tmp_path / "part" / "last.safetensors")


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}, {"start_head": "fresh"}], ids=str)
def test_fine_tuning_gives_the_weights_of_the_cpu(changes, tiny_model, lj_data, tmp_path, device):
    data = lj_data(6, name="new", seed=3)
    train(
        tiny_model(), lj_data(6), TrainConfig(steps=3, **OPTIONS), output=tmp_path / "start", progress=False
    )
    config = FinetuneConfig(steps=4, **OPTIONS).replace(**changes)
    for place in ("cpu", device):
        model = tmp_path / "start" / "last.safetensors"
        finetune(model, data, config.replace(device=place), output=tmp_path / place, progress=False)
    _same(tmp_path / "cpu" / "last.safetensors", tmp_path / device / "last.safetensors")


def test_evaluation_gives_the_errors_of_the_cpu(tiny_model, lj_data, tmp_path, device):
    data = lj_data(4)
    train(tiny_model(), data, TrainConfig(steps=3, **OPTIONS), output=tmp_path, progress=False)
    file = tmp_path / "last.safetensors"
    here, there = load_checkpoint(file), load_checkpoint(file).to(device)
    expected = evaluate(here, data).errors.to_dict()
    for model, place in ((file, device), (here, device), (there, device), (there, None), (there, "cpu")):
        found = evaluate(model, data, device=place).errors
        assert found.to_dict() == pytest.approx(expected, rel=1e-9), (model, place)
    assert potential_errors(there, data).to_dict() == pytest.approx(expected, rel=1e-9)
    assert rank_heads(here, data, device=device)[0].score == pytest.approx(rank_heads(there, data)[0].score)
    assert next(here.parameters()).device.type == "cpu"  # the caller's own is not moved
    for potential in (here, there):
        shift_energy_bias(potential, data)
    bias = [p.get_submodule("heads.0.out_bias").get_buffer("values").cpu().numpy() for p in (here, there)]
    np.testing.assert_allclose(bias[1], bias[0], atol=1e-9)


def _frames() -> list[Atoms]:
    """Small cells of the architectures' elements with labels out of the air."""
    rng, frames = np.random.default_rng(5), []
    for symbols in (["Cu", "O", "H", "Cu"], ["O", "O", "Cu", "H"]):
        atoms = bulk("Cu", cubic=True)
        atoms.symbols = symbols
        atoms.rattle(0.1, rng=rng)
        labels = {"forces": rng.normal(size=(4, 3)), "stress": rng.normal(scale=0.01, size=6)}
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal() - 20.0, **labels)
        frames.append(atoms)
    return frames


def _loss_and_gradients(name: str, device: str, dtype: str) -> dict[str, np.ndarray]:
    potential: Potential = make_potential(name).to(getattr(torch, dtype)).to(device)
    store = GraphStore(Dataset.from_atoms(_frames()), potential.config)
    batch = make_batch(store, [0, 1]).to(device)
    output = potential.compute(batch.graph, create_graph=True)
    loss = energy_force_loss(output, batch, (1.0, 10.0, 1.0)).total
    loss.backward()
    found = {n: p.grad for n, p in potential.named_parameters() if p.grad is not None}
    return {n: t.detach().cpu().numpy() for n, t in [("loss", loss), *found.items()]}


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_step_has_the_loss_and_the_gradients_of_the_cpu(name, device, dtype, tolerance):
    """float32: second derivatives add up more rounding, and come by other formulas than on the CPU."""
    expected = _loss_and_gradients(name, "cpu", dtype)
    found = _loss_and_gradients(name, device, dtype)
    assert found.keys() == expected.keys() and len(found) > 8
    assert abs(found["loss"] - expected["loss"]) <= min(tolerance, 1e-5) * abs(expected["loss"])
    largest = max(float(np.abs(v).max()) for n, v in expected.items() if n != "loss")
    for part, value in expected.items():
        if part != "loss":
            np.testing.assert_allclose(found[part], value, rtol=0, atol=tolerance * largest, err_msg=part)


def test_every_process_of_torchrun_takes_its_own_gpu(monkeypatch):
    chosen: list[int] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for device, expected in (("cpu", []), ("cuda:0", []), ("cuda", [1])):
        assert Processes.from_environment(device) == Processes(1, 2)
        assert chosen == expected
