"""Training, fine-tuning and evaluation away from the CPU: on a stand-in that refuses to mix with it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from other_device import OtherDevice

from dpa2calc.checkpoint import load_checkpoint
from dpa2calc.training.config import FinetuneConfig, TrainConfig
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.finetune import finetune
from dpa2calc.training.preparation import TrainingSet
from dpa2calc.training.run import pretrain, train
from dpa2calc.training.soap import Soap

# torch warns that loading weights "to meta" does nothing; the stand-in sees to it that it does
pytestmark = pytest.mark.filterwarnings("ignore:.*meta parameter.*:UserWarning")
OPTIONS = dict(
    optimizer="adamw", batch_atoms=8, ema_decay=0.9, gradient_clip_relative=3.0, gradient_clip_batch=2.0,
    huber_delta=0.5, virial_prefactor_start=1.0, virial_prefactor_limit=1.0, validate_every=3,
    final_bias_frames=4, dtype="float64", checkpoint_every=2,
)  # fmt: skip


@pytest.fixture
def other_device() -> Iterator[str]:
    with OtherDevice():
        yield "meta"


def _same(one: Path, other: Path) -> None:
    a, b = load_checkpoint(one).state_dict(), load_checkpoint(other).state_dict()
    for name, value in a.items():
        np.testing.assert_allclose(b[name].numpy(), value.numpy(), rtol=1e-6, atol=1e-8, err_msg=name)


def test_training_gives_the_weights_of_the_cpu(tiny_model, lj_data, tmp_path, other_device):
    data, held_out = lj_data(6), lj_data(2, seed=5)
    config = TrainConfig(steps=6, **OPTIONS)
    for device in ("cpu", other_device):
        sets = {"A": TrainingSet(data, held_out), "B": TrainingSet(data)}
        folder = tmp_path / device
        pretrain(tiny_model(("A", "B")), sets, config.replace(device=device), output=folder, progress=False)
    _same(tmp_path / "cpu" / "last.safetensors", tmp_path / "meta" / "last.safetensors")


def test_soap_gives_the_weights_of_the_cpu(other_device):
    """On given gradients: in a training the CPU's other rounding turns the first bases of SOAP."""
    gradients = [torch.randn(5, 7, generator=torch.Generator().manual_seed(i)) for i in range(25)]
    found = []
    for device in ("cpu", other_device):
        weight = torch.nn.Parameter(torch.zeros(5, 7).to(device))
        soap = Soap({"w": weight})
        for step, gradient in enumerate(gradients):
            weight.grad = gradient.to(device)
            soap.step(0.01)
            if step == 12:
                saved, taken = {name: value.cpu() for name, value in soap.tensors().items()}, dict(soap.steps)
                soap = Soap({"w": weight})
                soap.load(saved, taken)
        found.append(weight.detach().cpu())
    assert torch.equal(*found)


def test_a_stopped_run_goes_on(tiny_model, lj_data, tmp_path, other_device):
    data, config = lj_data(6), TrainConfig(steps=4, device=other_device, **OPTIONS)
    train(tiny_model(), data, config, output=tmp_path / "whole", progress=False)
    part = train(
        tiny_model(), data, config.replace(time_limit=1e-9), output=tmp_path / "part", progress=False
    )
    assert (part.steps, part.finished) == (1, False)
    train(tiny_model(), data, config, output=tmp_path / "part", progress=False)
    _same(tmp_path / "whole" / "last.safetensors", tmp_path / "part" / "last.safetensors")


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}, {"start_head": "fresh"}], ids=str)
def test_fine_tuning_gives_the_weights_of_the_cpu(changes, tiny_model, lj_data, tmp_path, other_device):
    data = lj_data(6, name="new", seed=3)
    train(
        tiny_model(), lj_data(6), TrainConfig(steps=3, **OPTIONS), output=tmp_path / "start", progress=False
    )
    config = FinetuneConfig(steps=4, **OPTIONS).replace(**changes)
    for device in ("cpu", other_device):
        model = tmp_path / "start" / "last.safetensors"
        finetune(model, data, config.replace(device=device), output=tmp_path / device, progress=False)
    _same(tmp_path / "cpu" / "last.safetensors", tmp_path / "meta" / "last.safetensors")


def test_evaluation_gives_the_errors_of_the_cpu(tiny_model, lj_data, tmp_path, other_device):
    data = lj_data(4)
    train(tiny_model(), data, TrainConfig(steps=3, **OPTIONS), output=tmp_path, progress=False)
    potential = load_checkpoint(tmp_path / "last.safetensors")
    here = evaluate(potential, data).errors
    there = evaluate(potential.to(other_device), data, device=other_device).errors
    assert there.to_dict() == pytest.approx(here.to_dict(), rel=1e-9)
