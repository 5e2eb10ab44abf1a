"""Training inside the modes that a caller may have switched on: the same weights to the last bit."""

import pytest
import torch
from modes import MODES

from dpa2calc.training import FinetuneConfig, TrainConfig, evaluate, finetune, train


def _everything(tiny_model, lj_data, folder):
    """Weights and errors of a training and of the fine-tuning that follows."""
    data = lj_data(6)
    config = TrainConfig(steps=4, batch_atoms=8, log_every=2, dtype="float32", device="cpu", seed=3)
    trained = train(tiny_model(("A",)), data, config, output=folder / "train", progress=False)
    short = FinetuneConfig(steps=3, batch_atoms=8, dtype="float32", device="cpu")
    tuned = finetune(trained.potential, data, short, output=folder / "tune", progress=False)
    found = {f"train {k}": v for k, v in trained.potential.state_dict().items()}
    found |= {f"tune {k}": v for k, v in tuned.potential.state_dict().items()}
    found["errors"] = torch.tensor(
        [evaluate(p, data).errors.force_rmse for p in (trained.potential, tuned.potential)],
        dtype=torch.float64,
        device="cpu",
    )
    return found


@pytest.fixture(scope="module")
def known():
    """What comes out without a mode, made once."""
    return {}


@pytest.mark.parametrize("mode", ("inference_mode", "no_grad", "autocast", "float64", "meta", "errstate"))
def test_the_same_weights(mode, known, tiny_model, lj_data, tmp_path):
    if not known:
        known.update(_everything(tiny_model, lj_data, tmp_path / "outside"))
    with MODES[mode]():
        got = _everything(tiny_model, lj_data, tmp_path / "inside")
    for name, right in known.items():
        assert torch.equal(got[name].detach(), right.detach()), name
